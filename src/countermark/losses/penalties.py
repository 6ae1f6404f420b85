"""Penalties on the discriminator's gradient, and the weight clipping that they replaced.

Penalties come as a value per sample [N] and can be differentiated again (exact double backward). A gradient per sample
is only that sample's where the samples of a batch do not see each other: no batch normalisation in D.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def _input_gradient(logits: Tensor, x: Tensor) -> Tensor:
    """d logits[n] / d x[n], flattened to [N,-1], with a graph so that a loss can be built on it."""
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return gradient.flatten(1)


def zero_centred(logits: Tensor, x: Tensor) -> Tensor:
    """||d D(x) / d x||^2 per sample [N], for x [N,...] that requires grad and logits [N] computed from it.

    R1 where x are reals, R2 where x are fakes; weight both by gamma / 2 (arXiv:1801.04406, eq. 9 and 10).
    """
    return _input_gradient(logits, x).square().sum(1)


def one_centred(D: Callable[[Tensor], Tensor], x_real: Tensor, x_fake: Tensor, generator: torch.Generator) -> Tensor:
    """(||d D(x) / d x|| - 1)^2 per sample [N] at x = alpha x_real + (1 - alpha) x_fake.

    The gradient penalty of WGAN-GP (arXiv:1704.00028, eq. 3, where its weight lambda is 10). alpha ~ U[0,1] is drawn
    per sample from `generator`; the norm is per sample too. x_real and x_fake [N,...] are taken as constants.
    """
    alpha = torch.rand(len(x_real), generator=generator).to(x_real).view(-1, *[1] * (x_real.ndim - 1))
    x = torch.lerp(x_fake.detach().to(x_real), x_real.detach(), alpha).requires_grad_()  # fakes may come as bfloat16
    return (torch.linalg.vector_norm(_input_gradient(D(x), x), dim=1) - 1).square()


@torch.no_grad()
def clip_weights(module: nn.Module, bound: float) -> None:
    """Clamp every parameter of `module` to [-bound, bound] in place (WGAN, arXiv:1701.07875, algorithm 1: 0.01)."""
    for parameter in module.parameters():
        parameter.clamp_(-bound, bound)
