"""Cures that penalise D's gradient: WGAN-GP's, DRAGAN's, R1 and R2, each also lazily or by finite differences."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from countermark.core.spec import Phase, Scheduled, Settings, Spec, Step
from countermark.losses.lazy import R1_INTERVAL, lazy_step, slowed, squared_norms
from countermark.losses.penalties import around, finite_difference, one_centred
from countermark.training.cures.cure import Case, Cure, Terms, with_penalty


def _gradient_penalty(spec: Spec, weight: Scheduled) -> Spec:
    def penalty(step: Step, terms: Terms) -> Tensor:
        return one_centred(step.judge, step.x, step.fakes(), step.generator)

    return with_penalty(spec, "D", "gradient_penalty", penalty, weight)


def _dragan(spec: Spec, weight: Scheduled) -> Spec:
    def penalty(step: Step, terms: Terms) -> Tensor:
        return one_centred(step.judge, step.x, around(step.x, step.generator), step.generator)

    return with_penalty(spec, "D", "dragan", penalty, weight)


def _estimated(step: Step, x: Tensor) -> Tensor:
    """D sees both sides of x through the same augmentation and noise: what is drawn for the first is drawn again."""

    def judge(both: Tensor) -> Tensor:
        drawn = step.generator.get_state()
        above, below = both.chunk(2)
        above = step.seen(above)
        step.generator.set_state(drawn)
        return step.logits(torch.cat([above, step.seen(below)]), sides=2)

    return finite_difference(judge, x, step.generator)


def _reals(step: Step) -> Tensor:
    return step.x


def _fakes(step: Step) -> Tensor:
    return step.fakes()


Pictures = Callable[[Step], Tensor]
Norm = Callable[[Step, Tensor], Tensor]


def _every_step(name: str, pictures: Pictures, norm: Norm) -> Callable[[Spec, Scheduled], Spec]:
    def apply(spec: Spec, gamma: Scheduled) -> Spec:
        return with_penalty(spec, "D", name, lambda step, terms: norm(step, pictures(step)), gamma * 0.5)

    return apply


def _lazily(name: str, pictures: Pictures) -> Callable[[Spec, Scheduled], Spec]:
    """As a phase of its own at every R1_INTERVAL-th batch, counted so often (arXiv:1912.04958, appendix B)."""

    def apply(spec: Spec, gamma: Scheduled) -> Spec:
        def penalty(step: Step) -> dict[str, Tensor]:
            return lazy_step(step, gamma, pictures(step), name)

        def phases(settings: Settings) -> tuple[Phase, ...]:
            slower = [
                dataclasses.replace(p, optimiser=slowed(p.optimiser, R1_INTERVAL / (R1_INTERVAL + 1)))
                if p.network == "D"
                else p
                for p in spec.phases(settings)
            ]
            last = max(i for i, p in enumerate(slower) if p.network == "D")
            lazy = dataclasses.replace(slower[last], function=penalty, interval=R1_INTERVAL, name=f"D_{name}")
            return (*slower[: last + 1], lazy, *slower[last + 1 :])

        return dataclasses.replace(spec, phases=phases)

    return apply


def _alone(case: Case) -> str:
    """Why a norm of the gradient a picture has no meaning, where it has none."""
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in case.networks["D"].modules()):
        return "its D has batch normalisation, so a picture's gradient is not its own"
    if case.cures & {"minibatch_std", "minibatch_discrimination"}:
        return "its D looks across a batch, so a picture's gradient is not its own"
    return ""


def _certain(case: Case) -> str:
    if any(isinstance(module, _DropoutNd) for module in case.networks["D"].modules()):
        return "its D drops units anew in every pass, which a difference of two passes cannot bear"
    return ""


def _gamma(settings: Settings) -> Scheduled:
    """0.0002 size^2 / batch, StyleGAN2-ADA's rule of thumb (arXiv:2006.06676, appendix C)."""
    return 0.0002 * settings.size**2 / settings.batch


CURES = (
    Cure(
        "gradient_penalty",
        "arXiv:1704.00028",
        "D's gradient has norm 1 between reals and fakes",
        "weight lambda",
        lambda settings: 10.0,
        _gradient_penalty,
        _alone,
        scheduled=True,
    ),
    Cure(
        "dragan",
        "arXiv:1705.07215",
        "D's gradient has norm 1 around reals",
        "weight lambda",
        lambda settings: 10.0,
        _dragan,
        _alone,
        scheduled=True,
    ),
    *(
        Cure(
            name,
            "arXiv:1801.04406",
            f"D's gradient vanishes at {what}",
            "gamma",
            _gamma,
            _every_step(name, pictures, squared_norms),
            scheduled=True,
        )
        for name, what, pictures in (("r1", "reals", _reals), ("r2", "fakes", _fakes))
    ),
    *(
        Cure(
            f"lazy_{name}",
            "arXiv:1912.04958",
            f"{name}, at every {R1_INTERVAL}th batch",
            "gamma",
            _gamma,
            _lazily(name, pictures),
            scheduled=True,
        )
        for name, pictures in (("r1", _reals), ("r2", _fakes))
    ),
    *(
        Cure(
            f"{name}_fd",
            "arXiv:2501.08316",
            f"{name} by finite differences: no second derivatives",
            "gamma",
            _gamma,
            _every_step(f"{name}_fd", pictures, _estimated),
            _certain,
            scheduled=True,
        )
        for name, pictures in (("r1", _reals), ("r2", _fakes))
    ),
)
