"""Cures that penalise D's gradient: WGAN-GP's, DRAGAN's, R1 and R2, each also lazily or by finite differences."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from countermark.core.gradients import differentiable
from countermark.core.spec import Adam, Optimiser, Phase, Schedule, Scheduled, Settings, Spec, Step
from countermark.losses.lazy import R1_INTERVAL
from countermark.losses.penalties import around, finite_difference, one_centred, zero_centred
from countermark.training.cures.cure import Cure, Terms, chosen, with_penalty


def _gradient_penalty(spec: Spec, weight: Scheduled) -> Spec:
    def penalty(step: Step, terms: Terms) -> Tensor:
        return one_centred(step.judge, step.x, step.fakes(), step.generator)

    return with_penalty(spec, "D", "gradient_penalty", penalty, weight)


def _dragan(spec: Spec, weight: Scheduled) -> Spec:
    def penalty(step: Step, terms: Terms) -> Tensor:
        return one_centred(step.judge, step.x, around(step.x, step.generator), step.generator)

    return with_penalty(spec, "D", "dragan", penalty, weight)


def _exact(step: Step, x: Tensor) -> Tensor:
    x = differentiable(x)
    return zero_centred(step.judge(x), x)


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
            value = _exact(step, pictures(step))
            return {"loss": R1_INTERVAL * step.at(gamma) / 2 * value.mean(), name: value}

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


def slowed(optimiser: Optimiser, share: float) -> Optimiser:
    """`optimiser` for a network that takes 1 / share times as many steps: Adam's memory lasts as many batches."""

    def power(beta: Scheduled) -> Scheduled:
        if isinstance(beta, Schedule):
            return dataclasses.replace(beta, start=beta.start**share, end=beta.end**share)
        return beta**share

    if isinstance(optimiser, Adam):
        beta1, beta2 = power(optimiser.beta1), power(optimiser.beta2)
        return dataclasses.replace(optimiser, lr=optimiser.lr * share, beta1=beta1, beta2=beta2)
    return dataclasses.replace(optimiser, lr=optimiser.lr * share)


def _alone(spec: Spec, settings: Settings, networks: Mapping[str, nn.Module]) -> str:
    """Why a norm of the gradient a picture has no meaning, where it has none."""
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in networks["D"].modules()):
        return "its D has batch normalisation, so a picture's gradient is not its own"
    if hasattr(settings, "num_deviations") or chosen(settings) & {"minibatch_std", "minibatch_discrimination"}:
        return "its D looks across a batch, so a picture's gradient is not its own"
    return ""


def _has_r1(spec: Spec, settings: Settings, networks: Mapping[str, nn.Module]) -> str:
    return "it has R1 already, with the setting gamma=" if hasattr(settings, "gamma") else ""


def _has_r2(spec: Spec, settings: Settings, networks: Mapping[str, nn.Module]) -> str:
    return "it has R2 already, with the setting gamma=" if spec.name == "r3gan" else ""


def _penalised(spec: Spec, settings: Settings, networks: Mapping[str, nn.Module]) -> str:
    own = hasattr(settings, "gradient_penalty")
    return "it has the setting gradient_penalty=" if own else _alone(spec, settings, networks)


def _certain(spec: Spec, settings: Settings, networks: Mapping[str, nn.Module]) -> str:
    if any(isinstance(module, nn.Dropout) for module in networks["D"].modules()):
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
        _penalised,
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
            _every_step(name, pictures, _exact),
            refuse,
            scheduled=True,
        )
        for name, what, pictures, refuse in (("r1", "reals", _reals, _has_r1), ("r2", "fakes", _fakes, _has_r2))
    ),
    *(
        Cure(
            f"lazy_{name}",
            "arXiv:1912.04958",
            f"{name}, at every {R1_INTERVAL}th batch",
            "gamma",
            _gamma,
            _lazily(name, pictures),
            refuse,
            scheduled=True,
        )
        for name, pictures, refuse in (("r1", _reals, _has_r1), ("r2", _fakes, _has_r2))
    ),
    *(
        Cure(
            f"{name}_fd",
            "arXiv:2501.08316",
            f"{name} by finite differences: no second derivatives, so torch.compile can take it",
            "gamma",
            _gamma,
            _every_step(f"{name}_fd", pictures, _estimated),
            _certain,
            scheduled=True,
        )
        for name, pictures in (("r1", _reals), ("r2", _fakes))
    ),
)
