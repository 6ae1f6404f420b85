"""What a model is (Spec), what a training step does (Phase), how a number changes with images shown (Schedule)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch

from countermark.core.chance import randn

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

    def __mul__(self, factor: float) -> Schedule:
        return Schedule(self.start * factor, self.end * factor, self.over_nimg, self.shape)


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
    cures: what is added to the model's own training, as NAME or NAME=NUMBER (training/cures).
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
    augment: Literal["", "b", "bg", "bgc", "full", "r3gan", "diffaugment"] = ""
    augment_p: Scheduled | None = None
    cures: tuple[str, ...] = ()


@dataclass
class Step:
    """What a phase's function sees: networks, a batch and its own randomness.

    x: [N,C,H,W] in [-1,1]. c: one-hot [N,num_classes] or None. nimg: real images shown before this iteration.
    make: how pictures come of z and c; None for the network G (old samples and packs are made otherwise).
    view: what D's pictures pass before they are augmented (StyleGAN3's blur).
    apart: whether D looks across a batch, so that reals and fakes may not be in one (minibatch discrimination).
    optimisers: by network and recipe (unrolled steps go on from their moments).
    """

    networks: Mapping[str, nn.Module]
    x: Tensor
    c: Tensor | None
    settings: Settings
    num_z: int
    nimg: int
    generator: torch.Generator
    _: KW_ONLY
    make: Callable[[Tensor, Tensor | None], Tensor] | None = None
    view: Callable[[Tensor], Tensor] | None = None
    apart: bool = False
    optimisers: Mapping[tuple[str, Optimiser], torch.optim.Optimizer] = field(default_factory=dict)

    def z(self) -> Tensor:
        """Fresh latents [N,num_z], standard normal."""
        return randn(len(self.x), self.num_z, generator=self.generator).to(self.x)

    def at(self, value: Scheduled) -> float:
        return at(value, self.nimg)

    def fakes(self) -> Tensor:
        """G's pictures [N,C,H,W] of fresh latents. Gradients flow into G where G learns: not in D's phases."""
        return (self.make or self.networks["G"])(self.z(), self.c)

    def seen(self, x: Tensor) -> Tensor:
        """What D is to see of the pictures x: through `view`, augmented anew where the networks hold "augment"."""
        x = x if self.view is None else self.view(x)
        augment = self.networks.get("augment")
        return x if augment is None else augment(x, self.nimg, self.generator)

    def judge(self, x: Tensor, sides: int = 1) -> Tensor:
        """D's logits of pictures x, through `seen`: the one door to D.

        x: [N,C,H,W] or, with sides=2, reals and then fakes [2N,C,H,W]. They pass as one batch, which halves the number
        of operations and moves spectral normalisation's power iteration by one step, as in BigGAN's code.
        """
        return self.logits(self.seen(x), sides)

    def logits(self, x: Tensor, sides: int = 1) -> Tensor:
        """D's logits of what it sees, as in `judge`."""
        D = self.networks["D"]
        if sides > 1 and self.apart:
            return torch.cat([D(side, self.c) for side in x.chunk(sides)])
        return D(x, None if self.c is None else torch.cat([self.c] * sides))


@dataclass(frozen=True)
class Phase:
    """One update of one network: every `interval` iterations, minimise `function(step)["loss"]` with `optimiser`.

    `function` returns named tensors: "loss" (a scalar) is minimised, all are reported as `<name>/<key>` (means).
    Those of an adversarial phase are values per sample [N] but for "loss": "logits_fake" with "logits_real" in D's,
    with "adversarial", the loss of each picture, in G's; cures build on them.
    `clip_grad_norm` bounds the gradient's norm; `after` runs on the network after the update (weight clipping).
    judged: whether D judges pictures in it. Phases of one network with equal optimisers share its state.
    """

    network: str
    optimiser: Optimiser
    function: Callable[[Step], dict[str, Tensor]]
    interval: int = 1
    name: str = ""
    clip_grad_norm: float | None = None
    after: Callable[[nn.Module], None] | None = None
    judged: bool = True

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
    head(D) is D's last layer, whose input are D's features of a picture; None where there is no such layer.
    cross_entropy: the weight of D's cross entropy on reals in its loss; 0 for other objectives.
    holds: the cures (training/cures) that the model has of its own, by name, and the setting that each goes by.
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
    head: Callable[[Any], nn.Module] | None = None
    cross_entropy: float = 0.0
    holds: Mapping[str, str] = field(default_factory=dict)
    average_buffers: bool = False
    rename_official: Callable[[str], str] | None = None
    from_official: Callable[..., tuple[dict[str, Any], dict[str, dict[str, Tensor]]]] | None = None

    def fitting_preset(self, size: int, channels: int) -> str:
        """The first preset of the smallest size that holds pictures (else of the largest), of their channels if any."""
        largest = max(preset.size for preset in self.presets.values())
        wanted = min((preset.size for preset in self.presets.values() if preset.size >= size), default=largest)
        fitting = {name: preset for name, preset in self.presets.items() if preset.size == wanted}
        return next((name for name, preset in fitting.items() if preset.channels == channels), next(iter(fitting)))
