"""Cures in the pictures that D sees: instance noise, old samples, consistency under transformations."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from countermark.core.chance import rand, randn
from countermark.core.shares import gather
from countermark.core.spec import Scheduled, Settings, Spec, Step
from countermark.nn.augmentation import Augment
from countermark.training.cures.cure import Case, Cure, Terms, over_networks, over_steps, with_penalty

REPLAY_BATCHES = 8  # how many batches of old samples are kept
_MOVES = {"flip": 1.0, "shift": 1.0}  # arXiv:1910.12027, section 3.1


class Noisy(nn.Module):
    """The augmentation, if there is one, and normal noise of a standard deviation."""

    def __init__(self, augment: nn.Module | None, deviation: float) -> None:
        super().__init__()
        self.augment, self.deviation = augment, deviation

    def forward(self, x: Tensor, nimg: int, generator: torch.Generator) -> Tensor:
        x = x if self.augment is None else self.augment(x, nimg, generator)
        return x + self.deviation * randn(*x.shape, generator=generator).to(x)


def _instance_noise(spec: Spec, deviation: Scheduled) -> Spec:
    def change(step: Step) -> Step:
        noisy = Noisy(step.networks.get("augment"), step.at(deviation))
        return dataclasses.replace(step, networks={**step.networks, "augment": noisy})

    return over_steps(spec, change)


class Replay(nn.Module):
    """Pictures of earlier steps, in float16, each with its class (arXiv:1612.07828, section 2.3).

    forward(x [N,C,H,W], c [N,K] or None, share, generator): x with old pictures of the same class, where there are any,
    in the place of about a `share` of them. A random half of x is kept, in random places.
    """

    pictures: Tensor
    classes: Tensor

    def __init__(self, num: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.register_buffer("pictures", torch.zeros(num, *shape, dtype=torch.float16))
        self.register_buffer("classes", torch.full((num,), -1))  # -1: empty

    def forward(self, x: Tensor, c: Tensor | None, share: float, generator: torch.Generator) -> Tensor:
        classes = torch.zeros(len(x), dtype=torch.long) if c is None else c.argmax(1).cpu()
        chance = rand(len(x), len(self.classes), generator=generator) * (classes[:, None] == self.classes.cpu())
        best, slots = chance.max(1)
        old = (best > 0) & (rand(len(x), generator=generator) < share)
        mixed = torch.where(old.view(-1, 1, 1, 1).to(x.device), self.pictures[slots].to(x), x)
        self._keep(x.detach(), classes, generator)
        return mixed

    def _keep(self, x: Tensor, classes: Tensor, generator: torch.Generator) -> None:
        kept = gather((rand(len(x), generator=generator) < 0.5).long()).nonzero()[:, 0]
        places = torch.randperm(len(self.classes), generator=generator)[: len(kept)]  # no place twice
        self.pictures[places] = gather(x)[kept].to(self.pictures)
        self.classes[places] = gather(classes)[kept].to(self.classes)


def _replay(spec: Spec, share: Scheduled) -> Spec:
    def added(networks: dict[str, nn.Module], settings: Settings) -> dict[str, nn.Module]:
        shape = (settings.channels, settings.size, settings.size)
        return {"replay": Replay(REPLAY_BATCHES * settings.batch, shape)}

    def change(step: Step) -> Step:
        make = step.make or step.networks["G"]

        def mixed(z: Tensor, c: Tensor | None) -> Tensor:
            return step.networks["replay"](make(z, c), c, step.at(share), step.generator)

        return dataclasses.replace(step, make=mixed)

    return over_steps(over_networks(spec, added), change, "D")


def _moved(step: Step, x: Tensor) -> Tensor:
    """x flipped and shifted by whole pixels, at random (`nn/augmentation.py`)."""
    return Augment(_MOVES, 1.0, len(x))(x, step.nimg, step.generator)


def _consistent(spec: Spec, weight: Scheduled) -> Spec:
    def penalty(step: Step, terms: Terms) -> Tensor:
        return (terms["logits_real"] - step.judge(_moved(step, step.x))).square()

    return with_penalty(spec, "D", "consistency", penalty, weight)


def _balanced(spec: Spec, weight: Scheduled) -> Spec:
    def penalty(step: Step, terms: Terms) -> Tensor:
        x_fake = step.fakes()
        fakes = (step.judge(x_fake) - step.judge(_moved(step, x_fake))).square()
        return fakes + (terms["logits_real"] - step.judge(_moved(step, step.x))).square()

    return with_penalty(spec, "D", "consistency", penalty, weight)


def _once(case: Case) -> str:
    return "bcr holds cr already" if {"cr", "bcr"} <= case.cures else ""


CURES = (
    Cure(
        "cr",
        "arXiv:1910.12027",
        "D's logits stay when a real is flipped and shifted",
        "weight lambda",
        lambda settings: 10.0,
        _consistent,
        _once,
        scheduled=True,
    ),
    Cure(
        "bcr",
        "arXiv:2002.04724",
        "as cr, for fakes too",
        "weight lambda",
        lambda settings: 10.0,
        _balanced,
        _once,
        scheduled=True,
    ),
)
REPLAY = Cure(
    "replay",
    "arXiv:1612.07828",
    "D sees fakes of earlier steps among those of now",
    "their share",
    lambda settings: 0.5,
    _replay,
    scheduled=True,
    most=1.0,
)
INSTANCE_NOISE = Cure(
    "instance_noise",
    "arXiv:1610.04490",
    "D sees reals and fakes through noise",
    "its standard deviation; pictures are in [-1,1]",
    lambda settings: 0.1,
    _instance_noise,
    scheduled=True,
)
