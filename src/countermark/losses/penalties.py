"""Penalties on D's gradient, the weight clipping that they replaced, and two on G: on its weights and path lengths.

Penalties on gradients come as a value per sample [N] and can be differentiated again (exact double backward). A
gradient per sample is only that sample's where the samples of a batch do not see each other: no batch normalisation in
D.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from countermark.core.chance import rand, randn
from countermark.core.gradients import input_gradient, second_derivatives
from countermark.core.precision import full_precision
from countermark.core.shares import gather


def zero_centred(logits: Tensor, x: Tensor) -> Tensor:
    """||d D(x) / d x||^2 per sample [N], for x [N,...] that requires grad and logits [N] computed from it.

    R1 where x are reals, R2 where x are fakes; weight both by gamma / 2 (arXiv:1801.04406, eq. 9 and 10). Compute the
    logits within `second_derivatives()` (core/gradients.py), so that D may be compiled.
    """
    return input_gradient(logits, x).flatten(1).square().sum(1)


def one_centred(D: Callable[[Tensor], Tensor], x_real: Tensor, x_fake: Tensor, generator: torch.Generator) -> Tensor:
    """(||d D(x) / d x|| - 1)^2 per sample [N] at x = alpha x_real + (1 - alpha) x_fake.

    The gradient penalty of WGAN-GP (arXiv:1704.00028, eq. 3, where its weight lambda is 10). alpha ~ U[0,1] is drawn
    per sample from `generator`; the norm is per sample too. x_real and x_fake [N,...] are taken as constants.
    """
    alpha = rand(len(x_real), generator=generator).to(x_real).view(-1, *[1] * (x_real.ndim - 1))
    x = torch.lerp(x_fake.detach().to(x_real), x_real.detach(), alpha).requires_grad_()  # fakes may come as bfloat16
    with second_derivatives():
        gradient = input_gradient(D(x), x)
    return (torch.linalg.vector_norm(gradient.flatten(1), dim=1) - 1).square()


def path_lengths(x_fake: Tensor, ws: Tensor, generator: torch.Generator) -> Tensor:
    """||J^T y|| per sample [N] with y ~ N(0, I), for pictures x_fake [N,C,H,W] made of ws [N,num_ws,w_dim].

    J is the Jacobian of a picture in its w; the square is the mean over the `num_ws` layers, and y is divided by
    sqrt(H W) so that lengths do not grow with the resolution (StyleGAN2, arXiv:1912.04958, section 3.2, eq. 4).
    """
    y = randn(*x_fake.shape, generator=generator).to(x_fake) / math.sqrt(x_fake[0, 0].numel())
    return input_gradient(x_fake * y, ws).square().sum(2).mean(1).sqrt()


@torch.no_grad()
def clip_weights(module: nn.Module, bound: float) -> None:
    """Clamp every parameter of `module` to [-bound, bound] in place (WGAN, arXiv:1701.07875, algorithm 1: 0.01)."""
    for parameter in module.parameters():
        parameter.clamp_(-bound, bound)


def off_diagonal(weights: Iterable[Tensor]) -> Tensor:
    """The sum over `weights` [out,...] of ||W W^T * (1 - I)||_F^2 with W [out,-1], a scalar: 0 for orthogonal rows.

    BigGAN's orthogonal regularisation, which leaves the rows' norms free (arXiv:1809.11096, eq. 3, with weight 1e-4).
    """
    weights = list(weights)
    with full_precision(weights[0]):
        grams = [weight.flatten(1) @ weight.flatten(1).T for weight in weights]
        return torch.stack([(gram - gram.diag().diag()).square().sum() for gram in grams]).sum()


def finite_difference(
    judge: Callable[[Tensor], Tensor], x: Tensor, generator: torch.Generator, step: float = 0.03
) -> Tensor:
    """An estimate of ||d D(x) / d x||^2 per sample [N] from two passes of D and no derivative in x.

    ((D(x + h v) - D(x - h v)) / 2h)^2 with h = `step` and v ~ N(0, I): its mean over v is the squared norm, but for an
    error in h^2 and D's third derivatives; its variance is twice the squared norm's square. It is the approximation of
    R1 and R2 by noise (arXiv:2501.08316) with a central difference. D is asked in float32 whatever autocast says:
    bfloat16 has too few digits for differences. judge gets both sides as one batch [2N,...], in one pass: between two,
    spectral normalisation would move D.
    Its gradient in the weights of a D with ReLUs holds what their kinks do to the mean norm, which second derivatives
    leave out: truer, and noisier by 1 / h.
    """
    with full_precision(x):
        x = x.detach().to(torch.promote_types(x.dtype, torch.float32))
        v = step * randn(*x.shape, generator=generator).to(x)
        above, below = judge(torch.cat([x + v, x - v])).chunk(2)
        return ((above - below) / (2 * step)).square()


def around(x: Tensor, generator: torch.Generator) -> Tensor:
    """x [N,...] with normal noise of half its deviation: DRAGAN's neighbours of reals (arXiv:1705.07215, eq. 1).

    Its authors' code has uniform noise of that size, and takes the gradient between x and its neighbour, as
    `one_centred` does; the paper takes it at the neighbour.
    """
    return x + gather(x).std() / 2 * randn(*x.shape, generator=generator).to(x)
