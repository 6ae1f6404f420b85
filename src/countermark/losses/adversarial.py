"""Adversarial objectives as pure functions of logits.

Shapes: logits_real, logits_fake [N], the discriminator's raw outputs before any sigmoid, D = sigmoid(logits).
Except for `minimax_value`, each returns a value per sample [N] that the named network minimises (the caller takes the
mean), so that parts of a batch can be accumulated and a mean over processes stays a mean over samples.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def minimax_value(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """V(D,G) = E_x[log D(x)] + E_z[log(1 - D(G(z)))], a scalar that D maximises and G minimises.

    Goodfellow et al. 2014 (arXiv:1406.2661), eq. 1. For the optimal D it equals 2 JSD(p_data || p_g) - log 4.
    """
    return -F.softplus(-logits_real).mean() - F.softplus(logits_fake).mean()


def saturating_g(logits_fake: Tensor) -> Tensor:
    """G's side of the minimax game, log(1 - D(G(z))): its gradient vanishes when D is sure (arXiv:1406.2661, eq. 1)."""
    return -F.softplus(logits_fake)


def non_saturating_d(logits_real: Tensor, logits_fake: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross entropy of D with target 1 - smoothing on reals and 0 on fakes (arXiv:1406.2661, section 3).

    One-sided label smoothing (arXiv:1606.03498, section 3.4) moves the target of the reals only: smoothed fakes would
    reward G for staying where it is.
    """
    real = F.softplus(-logits_real)
    if smoothing:  # the cross entropy with target t is softplus(-logit) + (1 - t) logit; 0 * inf is not a number
        real = real + smoothing * logits_real
    return real + F.softplus(logits_fake)


def non_saturating_g(logits_fake: Tensor) -> Tensor:
    """-log D(G(z)): the minimax game's fixed point with strong gradients early (arXiv:1406.2661, section 3)."""
    return F.softplus(-logits_fake)


def wasserstein_d(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """The critic's loss f(G(z)) - f(x), minus the dual of the Wasserstein-1 distance (arXiv:1701.07875, eq. 2-3)."""
    return logits_fake - logits_real


def wasserstein_g(logits_fake: Tensor) -> Tensor:
    """-f(G(z)) (arXiv:1701.07875, algorithm 1)."""
    return -logits_fake


def hinge_d(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """max(0, 1 - D(x)) + max(0, 1 + D(G(z))) (arXiv:1802.05957, eq. 16)."""
    return F.relu(1 - logits_real) + F.relu(1 + logits_fake)


def hinge_g(logits_fake: Tensor) -> Tensor:
    """-D(G(z)) (arXiv:1802.05957, eq. 17)."""
    return -logits_fake


def least_squares_d(logits_real: Tensor, logits_fake: Tensor, target_real: float = 1.0) -> Tensor:
    """1/2 (D(x) - b)^2 + 1/2 D(G(z))^2 with b = target_real (arXiv:1611.04076, eq. 2 with a = 0; eq. 9 for b = 1)."""
    return ((logits_real - target_real).square() + logits_fake.square()) / 2


def least_squares_g(logits_fake: Tensor) -> Tensor:
    """1/2 (D(G(z)) - 1)^2 (arXiv:1611.04076, eq. 9)."""
    return (logits_fake - 1).square() / 2


def relativistic_d(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """softplus(-(D(x) - D(G(z)))): each real is to score above the fake it is paired with.

    Relativistic pairing: arXiv:1807.00734, eq. 3, as R3GAN uses it (arXiv:2501.05441, eq. 2 with f(t) = -log(1+e^-t)).
    """
    return F.softplus(logits_fake - logits_real)


def relativistic_g(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """softplus(-(D(G(z)) - D(x))): `relativistic_d` mirrored; G's step needs D(x) too (arXiv:2501.05441, eq. 2)."""
    return F.softplus(logits_real - logits_fake)
