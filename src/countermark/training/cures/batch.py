"""Cures that let D look at several pictures at once: minibatch deviation and discrimination, PacGAN."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from countermark.core.errors import UsageError
from countermark.core.precision import full_precision
from countermark.core.shares import gather
from countermark.core.spec import Settings, Spec, Step
from countermark.nn.stylegan2 import with_deviations
from countermark.training.cures.cure import Case, Cure, Terms, over_networks, over_steps, over_terms

NUM_DIMS = 5  # of each kernel (arXiv:1606.03498, section 3.2, code)


class MinibatchDeviation(nn.Module):
    """Features [N,F] to [N,1]: their mean deviation within groups of samples (arXiv:1710.10196, section 3)."""

    def __init__(self, num_features: int, group: int) -> None:
        super().__init__()
        self.group = group

    def forward(self, features: Tensor) -> Tensor:
        return with_deviations(features[:, :, None, None], self.group, 1)[:, -1:, 0, 0]


class MinibatchDiscrimination(nn.Module):
    """Features [N,F] to [N,num_kernels]: how near the others are, o(x_i)_b = mean over j of exp(-||M_ib - M_jb||_1).

    M_i = T f(x_i) with a learnt T [F,num_kernels,NUM_DIMS] (arXiv:1606.03498, section 3.2, eq. 3 and 4, where the sum
    is taken, of which the mean does not grow with the batch).
    """

    def __init__(self, num_features: int, num_kernels: int) -> None:
        super().__init__()
        self.T = nn.Parameter(torch.randn(num_features, num_kernels * NUM_DIMS) / math.sqrt(num_features))

    def forward(self, features: Tensor) -> Tensor:
        M = (features @ self.T).unflatten(1, (-1, NUM_DIMS))
        return (-(M[:, None] - gather(M)[None]).abs().sum(3)).exp().mean(1)


class Looking(nn.Module):
    """D, to whose logits a linear map of what `layer` finds in its features of the whole batch is added.

    The features are the input of D's last layer, `head`: as that is linear, adding to its output is the same as giving
    it more inputs. layer(number of features) makes the layer; x, c: pictures and classes, to find that number.
    """

    def __init__(
        self,
        D: nn.Module,
        head: Callable[[Any], nn.Module],
        layer: Callable[[int], nn.Module],
        x: Tensor,
        c: Tensor | None,
    ) -> None:
        super().__init__()
        self.D, self.head = D, head
        with torch.no_grad():
            features, _ = self._features_and_logits(x, c)
        self.layer = layer(features.shape[1])
        self.linear = nn.Linear(self.layer(features).shape[1], 1)

    def _features_and_logits(self, x: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
        caught: list[Tensor] = []
        handle = self.head(self.D).register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0]))
        try:
            logits = self.D(x, c)
        finally:
            handle.remove()
        return caught[0].flatten(1), logits

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        features, logits = self._features_and_logits(x, c)
        with full_precision(x):
            return logits + self.linear(self.layer(features.to(self.linear.weight.dtype)))[:, 0]


def _looking(layer: Callable[[int, int], nn.Module]) -> Callable[[Spec, int], Spec]:
    """The cure that puts `layer(number of features, number)` beside D's head, and keeps reals and fakes apart."""

    def apply(spec: Spec, number: int) -> Spec:
        head = spec.head
        assert head is not None  # _headless refuses others

        def changed(networks: dict[str, nn.Module], settings: Settings) -> dict[str, nn.Module]:
            x = torch.zeros(2, settings.channels, settings.size, settings.size)
            c = torch.eye(settings.num_classes)[:1].expand(2, -1) if settings.num_classes else None
            D = networks["D"].eval()
            looking = Looking(D, head, lambda num_features: layer(num_features, number), x, c)
            return {"D": looking.train()}

        apart = over_steps(over_networks(spec, changed), lambda step: dataclasses.replace(step, apart=True))
        return dataclasses.replace(apart, head=lambda D: head(D.D))

    return apply


def _headless(case: Case) -> str:
    return "" if case.spec.head is not None else "its Spec does not say which layer is D's last (head)"


def packed(x: Tensor, num: int) -> Tensor:
    """[N,C,...] to [N/num,num*C,...]: samples n, n + N/num, ... in one, so that a share of a batch has whole packs."""
    return x.unflatten(0, (num, -1)).transpose(0, 1).flatten(1, 2)


def unpacked(x: Tensor, num: int) -> Tensor:
    """The inverse of `packed`."""
    return x.unflatten(1, (num, -1)).transpose(0, 1).flatten(0, 1)


def _pacgan(spec: Spec, num: int) -> Spec:
    """D judges packs (arXiv:1712.04086, section 2): to the model a pack is a picture of `num` times the channels,
    with as many latents and classes, so that every loss and penalty is of packs without further changes."""

    def build(settings: Settings) -> dict[str, nn.Module]:
        wide = dataclasses.replace(
            settings, channels=num * settings.channels, num_classes=num * settings.num_classes, augment=""
        )
        return {**spec.build(settings), "D": spec.build(wide)["D"]}

    def change(step: Step) -> Step:
        if len(step.x) % num:
            raise UsageError(f"cures: packs of {num} do not divide {len(step.x)} pictures; choose another batch")
        make = step.make or step.networks["G"]
        networks = dict(step.networks)
        if augment := networks.get("augment"):
            networks["augment"] = lambda x, *how: packed(augment(unpacked(x, num), *how), num)  # type: ignore

        def packs(z: Tensor, c: Tensor | None) -> Tensor:
            return packed(make(unpacked(z, num), None if c is None else unpacked(c, num)), num)

        return dataclasses.replace(
            step,
            networks=networks,
            x=packed(step.x, num),
            c=None if step.c is None else packed(step.c, num),
            num_z=num * step.num_z,
            make=packs,
        )

    def counted(step: Step, terms: Terms) -> Terms:
        """ADA counts pictures."""
        return {"r_t": terms["r_t"].repeat_interleave(num)} if "r_t" in terms else {}

    return over_terms(over_steps(dataclasses.replace(spec, build=build), change), "D", counted)


def _divides(case: Case) -> str:
    share = case.settings.batch // case.settings.accumulate
    return f"packs of {case.number} do not divide {share} pictures; choose another batch" if share % case.number else ""


CURES = (
    Cure(
        "minibatch_std",
        "arXiv:1710.10196",
        "D sees how much the pictures of a batch differ",
        "pictures in a group",
        lambda settings: 4,
        _looking(MinibatchDeviation),
        _headless,
        whole=True,
        most=1024,
    ),
    Cure(
        "minibatch_discrimination",
        "arXiv:1606.03498",
        "D sees how near the others of a batch are",
        "kernels",
        lambda settings: 16,
        _looking(MinibatchDiscrimination),
        _headless,
        whole=True,
        most=1024,
    ),
)
PACKING = Cure(
    "pacgan",
    "arXiv:1712.04086",
    "D judges packs of pictures",
    "pictures in a pack",
    lambda settings: 2,
    _pacgan,
    _divides,
    whole=True,
    most=64,
)
