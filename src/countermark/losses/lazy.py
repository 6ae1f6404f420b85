"""Lazy regularisation: a regulariser at every k-th batch, on the same optimiser as the loss (arXiv:1912.04958, app. B).

Its terms count k times, and the optimiser, which takes k + 1 steps in k batches, is slowed down accordingly.
"""

from __future__ import annotations

from torch import Tensor

from countermark.core.spec import Adam, Step
from countermark.losses.penalties import zero_centred

R1_INTERVAL = 16  # batches


def lazy_adam(lr: float, interval: int) -> Adam:
    """Adam (0, 0.99) for a network that takes interval + 1 steps in `interval` batches."""
    share = interval / (interval + 1)
    return Adam(lr * share, beta1=0.0, beta2=0.99**share)


def r1_step(step: Step, gamma: float) -> dict[str, Tensor]:
    """R1 in the pictures before augmentation, [N], times its interval."""
    x = step.x.detach().requires_grad_()
    penalty = zero_centred(step.judge(x), x)
    return {"loss": (R1_INTERVAL * gamma / 2 * penalty).mean(), "r1": penalty}
