"""What a model is (Spec), what a training step does (Phase), how a number changes with images shown (Schedule)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Schedule:
    """A number that goes from `start` to `end` over the first `over_nimg` images, then stays.

    `cosine` follows half a cosine (R3GAN, arXiv:2501.05441), `linear` a straight line, `step` waits and jumps.
    """

    start: float
    end: float
    over_nimg: int
    shape: Literal["cosine", "linear", "step"] = "cosine"

    def at(self, nimg: int) -> float:
        t = min(max(nimg / self.over_nimg, 0.0), 1.0)
        weight = {"cosine": (1 - math.cos(math.pi * t)) / 2, "linear": t, "step": math.floor(t)}[self.shape]
        return self.start + (self.end - self.start) * weight


Scheduled = float | Schedule


def at(value: Scheduled, nimg: int) -> float:
    """The value of a plain number or of a Schedule once `nimg` images have been shown."""
    return value.at(nimg) if isinstance(value, Schedule) else float(value)


@dataclass(frozen=True)
class Adam:
    """Adam (arXiv:1412.6980); every number may be a Schedule."""

    lr: Scheduled
    beta1: Scheduled = 0.0
    beta2: Scheduled = 0.99
    eps: float = 1e-8

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, **self.options(0), eps=self.eps, fused=True)

    def options(self, nimg: int) -> dict:
        return {"lr": at(self.lr, nimg), "betas": (at(self.beta1, nimg), at(self.beta2, nimg))}


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum; both numbers may be Schedules."""

    lr: Scheduled
    momentum: Scheduled = 0.0

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, **self.options(0))

    def options(self, nimg: int) -> dict:
        return {"lr": at(self.lr, nimg), "momentum": at(self.momentum, nimg)}


@dataclass(frozen=True)
class RMSprop:
    """RMSprop (Tieleman and Hinton 2012): the gradient over the root of its squares' running mean, of decay `alpha`."""

    lr: Scheduled
    alpha: Scheduled = 0.99
    eps: float = 1e-8

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(parameters, **self.options(0), eps=self.eps)

    def options(self, nimg: int) -> dict:
        return {"lr": at(self.lr, nimg), "alpha": at(self.alpha, nimg)}


Optimiser = Adam | SGD | RMSprop


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every training has; a model's own settings class adds the shape of its networks and its objective.

    size: side of the square pictures in pixels. batch: real images shown per iteration, in `accumulate` equal parts.
    ema_halflife_nimg: half-life in images of the averaged networks; 0 keeps no average.
    bf16: autocast to bfloat16. channels_last: memory order of weights and pictures.
    augment: the set of transformations through which D sees pictures (nn/augmentation.py), "" for none.
    augment_p: their probability; None lets it follow how D does on reals.
    """

    size: int
    channels: int = 3
    num_classes: int = 0
    batch: int = 64
    accumulate: int = 1
    total_nimg: int = 1_000_000
    ema_halflife_nimg: Scheduled = 0
    bf16: bool = False
    channels_last: bool = False
    augment: Literal["", "b", "bg", "bgc", "full", "r3gan"] = ""
    augment_p: Scheduled | None = None


@dataclass
class Step:
    """What a phase's function sees: networks, a batch and its own randomness.

    x: [N,C,H,W] in [-1,1]. c: one-hot [N,num_classes] or None. nimg: real images shown before this iteration.
    """

    networks: Mapping[str, nn.Module]
    x: Tensor
    c: Tensor | None
    settings: Settings
    num_z: int
    nimg: int
    generator: torch.Generator

    def z(self) -> Tensor:
        """Fresh latents [N,num_z], standard normal."""
        return torch.randn(len(self.x), self.num_z, generator=self.generator).to(self.x)

    def at(self, value: Scheduled) -> float:
        return at(value, self.nimg)

    def seen(self, x: Tensor) -> Tensor:
        """What D is to see of the pictures x: augmented anew where the networks hold "augment", else x itself."""
        augment = self.networks.get("augment")
        return x if augment is None else augment(x, self.nimg, self.generator)


@dataclass(frozen=True)
class Phase:
    """One update of one network: every `interval` iterations, minimise `function(step)["loss"]` with `optimiser`.

    `function` returns named tensors: "loss" (a scalar) is minimised, all are reported as `<name>/<key>` (means).
    `clip_grad_norm` bounds the gradient's norm; `after` runs on the network after the update (weight clipping).
    Phases of one network with equal optimisers share its state.
    """

    network: str
    optimiser: Optimiser
    function: Callable[[Step], dict[str, Tensor]]
    interval: int = 1
    name: str = ""
    clip_grad_norm: float | None = None
    after: Callable[[nn.Module], None] | None = None

    @property
    def label(self) -> str:
        return self.name or self.network


@dataclass(frozen=True)
class Spec:
    """A model: how to build its networks, how to train them, its presets and its paper.

    kind: 'image' (has a network G: G(z, c) -> pictures [N,C,H,W] in [-1,1]) or 'detect' (has a network F:
    F(x) -> logits [N], higher is more synthetic).
    build(settings) returns the networks by name; phases(settings) the phases in the order in which they run.
    num_z(settings) is the length of z. averaged: the networks of which a moving average is kept and sampled.
    average_buffers: whether running statistics and the like are averaged as weights are (BigGAN), or copied.
    rename_official(key) turns a key of the official state dict (without the network's prefix) into ours.
    from_official(arguments, tensors) reads an official checkpoint; both are by network: G always, D and G_ema where the
    files have them. arguments[network] are those of its official constructor by name ({} where the files do not say),
    tensors[network] its official state dict. Returns the settings that the checkpoint fixes, by name, and the state
    dicts by network under our keys. Both arguments are a stranger's: whatever it raises means that they are not of this
    model, and the shapes that it returns are compared with those of `build` before anything is loaded.
    """

    name: str
    kind: Literal["image", "detect"]
    paper: str
    year: int
    presets: Mapping[str, Settings]
    build: Callable[..., dict[str, nn.Module]]
    phases: Callable[..., tuple[Phase, ...]]
    num_z: Callable[..., int] = field(default=lambda settings: 0)
    averaged: tuple[str, ...] = ("G",)
    average_buffers: bool = False
    rename_official: Callable[[str], str] | None = None
    from_official: Callable[..., tuple[dict[str, Any], dict[str, dict[str, Tensor]]]] | None = None

    def fitting_preset(self, size: int, channels: int) -> str:
        """The first preset of the smallest size that holds pictures (else of the largest), of their channels if any."""
        largest = max(preset.size for preset in self.presets.values())
        wanted = min((preset.size for preset in self.presets.values() if preset.size >= size), default=largest)
        fitting = {name: preset for name, preset in self.presets.items() if preset.size == wanted}
        return next((name for name, preset in fitting.items() if preset.channels == channels), next(iter(fitting)))
