"""Cures on the weights: historical averaging, spectral norm, orthogonal regularisation, clipping of weights."""

from __future__ import annotations

import dataclasses
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from countermark.core.errors import UsageError
from countermark.core.spec import Phase, Scheduled, Settings, Spec, Step
from countermark.losses.penalties import clip_weights, off_diagonal
from countermark.nn.spectral import SpectralNorm
from countermark.training.cures.cure import Case, Cure, Terms, over_networks, over_phases, with_penalty

SPECTRAL_EPS = 1e-6


class History(nn.Module):
    """The mean of a network's weights over all steps so far; forward(network) is its squared distance from them."""

    num: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.register_buffer("num", torch.zeros(()))
        for i, parameter in enumerate(network.parameters()):
            self.register_buffer(f"mean{i}", torch.zeros_like(parameter))

    def forward(self, network: nn.Module) -> Tensor:
        self.num += 1
        means = [mean for name, mean in self.named_buffers() if name != "num"]
        parameters = list[Tensor](network.parameters())
        with torch.no_grad():
            torch._foreach_lerp_(means, parameters, 1 / self.num.item())
        return torch.stack([(p - mean).square().sum() for p, mean in zip(parameters, means, strict=True)]).sum()


def _historical(spec: Spec, weight: Scheduled) -> Spec:
    """The cost term ||theta - mean over time of theta||^2 of both players (arXiv:1606.03498, section 3.3)."""

    def penalty(name: str, step: Step, terms: Terms) -> Tensor:
        return step.networks[f"history_{name}"](step.networks[name])

    def added(networks: dict[str, nn.Module], settings: Settings) -> dict[str, nn.Module]:
        return {f"history_{name}": History(networks[name]) for name in ("G", "D")}

    remembering = over_networks(spec, added)
    for name in ("G", "D"):
        remembering = with_penalty(remembering, name, "history", partial(penalty, name), weight)
    return remembering


def _weighted(network: nn.Module) -> list[nn.Module]:
    """The modules that hold a weight of two or more dimensions."""
    return [m for m in network.modules() if isinstance(w := m._parameters.get("weight"), Tensor) and w.ndim > 1]


def _spectral(spec: Spec, number: float) -> Spec:
    def changed(networks: dict[str, nn.Module], settings: Settings) -> dict[str, nn.Module]:
        for module in _weighted(networks["D"]):
            weight = module.get_parameter("weight")
            if not weight.is_meta and not weight.any():
                raise UsageError("cures: spectral_norm: a layer of D starts at zero, which has no norm; leave it out")
            register_parametrization(module, "weight", SpectralNorm(len(weight), SPECTRAL_EPS))
        return {}

    return over_networks(spec, changed)


def _scaling(case: Case) -> str:
    known = all(isinstance(module, nn.Conv2d | nn.Linear) for module in _weighted(case.networks["D"]))
    return "" if known else "its D scales weights in ways of its own"


def _orthogonal(spec: Spec, weight: Scheduled) -> Spec:
    def penalty(step: Step, terms: Terms) -> Tensor:
        named = step.networks["G"].named_parameters()
        return off_diagonal(w for name, w in named if w.ndim > 1 and not name.startswith("shared."))

    return with_penalty(spec, "G", "off_diagonal", penalty, weight)


def _clip_weights(spec: Spec, bound: float) -> Spec:
    def clipped(phase: Phase) -> Phase:
        return dataclasses.replace(phase, after=partial(clip_weights, bound=bound))

    return over_phases(spec, clipped, "D")


CURES = (
    Cure(
        "spectral_norm",
        "arXiv:1802.05957",
        "D's weights are divided by their largest singular value",
        "",
        lambda settings: 1.0,
        _spectral,
        _scaling,
    ),
    Cure(
        "orthogonal",
        "arXiv:1809.11096",
        "the rows of G's weights are drawn to be orthogonal",
        "weight",
        lambda settings: 1e-4,
        _orthogonal,
        scheduled=True,
    ),
    Cure(
        "clip_weights",
        "arXiv:1701.07875",
        "D's weights stay within a bound",
        "bound",
        lambda settings: 0.01,
        _clip_weights,
    ),
)
HISTORY = Cure(
    "historical_averaging",
    "arXiv:1606.03498",
    "weights are drawn to the mean of all that they have been",
    "weight",
    lambda settings: 1e-3,
    _historical,
    scheduled=True,
)
