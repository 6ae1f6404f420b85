"""Lazy regularisation: a regulariser at every k-th batch, on the same optimiser as the loss (arXiv:1912.04958, app. B).

Its terms count k times, and the optimiser, which takes k + 1 steps in k batches, is slowed down accordingly.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from countermark.core.gradients import differentiable, second_derivatives
from countermark.core.spec import Adam, Optimiser, Schedule, Scheduled, Step
from countermark.losses.penalties import zero_centred

R1_INTERVAL = 16  # batches


def slowed(optimiser: Optimiser, share: float) -> Optimiser:
    """`optimiser` for a network that takes 1 / share times as many steps: its rate, and how long Adam remembers."""

    def power(beta: Scheduled) -> Scheduled:
        if isinstance(beta, Schedule):
            return replace(beta, start=beta.start**share, end=beta.end**share)
        return beta**share

    if isinstance(optimiser, Adam):
        optimiser = replace(optimiser, beta1=power(optimiser.beta1), beta2=power(optimiser.beta2))
    return replace(optimiser, lr=optimiser.lr * share)


def lazy_adam(lr: float, interval: int) -> Optimiser:
    """Adam (0, 0.99) for a network that takes interval + 1 steps in `interval` batches."""
    return slowed(Adam(lr, beta1=0.0, beta2=0.99), interval / (interval + 1))


def squared_norms(step: Step, x: Tensor) -> Tensor:
    """The squared norm of D's gradient [N] in the pictures x, before augmentation: R1 for reals, R2 for fakes."""
    x = differentiable(x)
    with second_derivatives():
        return zero_centred(step.judge(x), x)


def lazy_step(step: Step, gamma: Scheduled, x: Tensor, name: str) -> dict[str, Tensor]:
    """`squared_norms` of x, reported as `name`, times gamma / 2 and the interval."""
    penalty = squared_norms(step, x)
    return {"loss": (R1_INTERVAL * step.at(gamma) / 2 * penalty).mean(), name: penalty}


def r1_step(step: Step, gamma: Scheduled) -> dict[str, Tensor]:
    """R1, lazily."""
    return lazy_step(step, gamma, step.x, "r1")
