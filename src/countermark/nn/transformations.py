"""Transformations of pictures, each with parameters of its own and differentiable twice: what augmentation is made of.

Pictures x are [N,C,S,S] about [-1,1]; a parameter has one entry a picture. Positions are in pixels from the picture's
centre, x to the right, y downwards; beyond its border a picture is mirrored at the centres of its outermost pixels.
Everything is linear in the picture but for an offset, so exact gradients of any order come from matrix products and
from `_Lookup`, whose second derivative torch lacks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Orthonormal wavelet filters of the symlet family with 6 and with 2 vanishing moments (Daubechies 1992, chapter 8).
SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
    0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
    -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)

# Mirrored pixels around a picture that is doubled, more than its filters reach: sym6 is not quite symmetric, so mirrors
# at the very border of a doubled picture would tear it there.
_MARGIN = 6

_MODES, _REFLECTION = {"bilinear": 0, "nearest": 1}, 2  # torch's numbers for what F.grid_sample calls by name


class _Lookup(torch.autograd.Function):
    """F.grid_sample with mirrored borders, linear in x; the grid [N,K,K,2] is a constant."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: Tensor, mode: str, align_corners: bool) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.how = mode, align_corners, x.shape
        return F.grid_sample(x, grid, mode, "reflection", align_corners)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Scatter.apply(gradient, *ctx.saved_tensors, *ctx.how), None, None, None


class _Scatter(torch.autograd.Function):
    """The adjoint of `_Lookup`, whose gradient is `_Lookup` again."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, grid: Tensor, mode: str, align_corners: bool, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.how = mode, align_corners
        return torch.ops.aten.grid_sampler_2d_backward(
            y, y.new_empty(shape), grid, _MODES[mode], _REFLECTION, align_corners, [True, False]
        )[0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Lookup.apply(gradient, *ctx.saved_tensors, *ctx.how), None, None, None, None


def _grid(matrices: Tensor, size: int, num: int, reach: float) -> Tensor:
    """Where num x num points that reach from -reach to reach lie before `matrices` [N,3,3], for F.grid_sample.

    There -1 and 1 are the centres of the first and the last of `size` pixels.
    """
    unit = matrices.new_tensor([reach, reach, 1.0])
    places = torch.linalg.inv(matrices)[:, :2] * unit * (2 / (size - 1))
    return F.affine_grid(places, [len(matrices), 1, num, num], align_corners=True)


def blit(x: Tensor, matrices: Tensor) -> Tensor:
    """x moved by `matrices` [N,3,3] that take pixel centres to pixel centres: flips, quarter turns, whole shifts."""
    size = x.shape[-1]
    return _Lookup.apply(x, _grid(matrices, size, size, (size - 1) / 2), "nearest", True)


def warp(x: Tensor, matrices: Tensor) -> Tensor:
    """x moved by any affine `matrices` [N,3,3] of positions in homogeneous coordinates (arXiv:2006.06676, appendix B).

    The picture is doubled, read bilinearly at twice its resolution and halved, both with the filter sym6: since it is
    orthonormal, nothing is lost by doubling and halving.
    """
    size = x.shape[-1]
    double, halve = _double(size).to(x), _halve(size).to(x)
    doubled = double @ x @ double.T
    num = halve.shape[1]
    grid = _grid(matrices, size + 2 * _MARGIN, num, (num - 1) / 4)
    return halve @ _Lookup.apply(doubled, grid, "bilinear", False) @ halve.T


def _halve(size: int) -> Tensor:
    """[S,2S+10]: from points at half a pixel's distance, five beyond either side, to pixels."""
    points = torch.eye(2 * size + 10)[:, None]
    return F.conv1d(points, torch.tensor([[SYM6]]) / 2**0.5, stride=2)[:, 0].T


def _double(size: int) -> Tensor:
    """[2(S+2M)-2,S]: the adjoint of `_halve`, times 2, between the centres of the outermost of M mirrored pixels."""
    reach = _MARGIN + 3
    pixels = torch.eye(size)[:, None, _mirrored(torch.arange(-reach, size + reach), size)]
    return F.conv_transpose1d(pixels, torch.tensor([[SYM6]]) * 2**0.5, stride=2, padding=5)[:, 0, 7:-7].T


def _mirrored(places: Tensor, size: int) -> Tensor:
    """Which of `size` pixels appear at `places`, counted from the first pixel, between two mirrors."""
    places = places % (2 * size - 2)
    return torch.minimum(places, 2 * size - 2 - places)


def recolour(
    x: Tensor, *, brightness: Tensor, contrast: Tensor, luma: Tensor, hue: Tensor, saturation: Tensor
) -> Tensor:
    """Brightness is added, then everything scaled by `contrast`, luma by `luma` and the rest by `saturation`, turned by
    `hue` radians about the grey axis (arXiv:2006.06676, appendix B). Grey pictures have luma alone.
    """
    x = x + brightness.view(-1, 1, 1, 1)
    if x.shape[1] == 1:
        return x * (contrast * luma).view(-1, 1, 1, 1)
    grey = torch.full((3, 3), 1 / 3).to(x)
    turn = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]).to(x) / 3**0.5  # the vector product with the grey axis
    luma, cos, sin = (v.view(-1, 1, 1) for v in (luma, saturation * hue.cos(), saturation * hue.sin()))
    matrices = contrast.view(-1, 1, 1) * (luma * grey + cos * (torch.eye(3).to(x) - grey) + sin * turn)
    return (matrices @ x.flatten(2)).view_as(x)


def octave_filters() -> Tensor:
    """[4,43]: filters for frequencies up to 1/8, 1/4, 1/2 and 1 times the highest, of sum one pixel, from sym2."""
    low = np.convolve(SYM2, SYM2[::-1]) / 2
    passed = np.array([1.0])
    filters: list[np.ndarray] = []
    for octave in range(3):
        spread = np.zeros((len(low) - 1) * 2**octave + 1)
        spread[:: 2**octave] = low
        lower = np.convolve(passed, spread)
        filters.insert(0, np.pad(passed, (len(spread) - 1) // 2) - lower)
        passed = lower
    filters.insert(0, passed)
    return torch.tensor(np.stack([np.pad(taps, (len(passed) - len(taps)) // 2) for taps in filters]))


def amplify_octaves(x: Tensor, gains: Tensor) -> Tensor:
    """x filtered by rows and by columns with the sum of `octave_filters` weighted by `gains` [N,4]."""
    size, filters = x.shape[-1], octave_filters().to(x)
    reach = filters.shape[1] // 2
    places = (torch.arange(size)[:, None] + torch.arange(-reach, reach + 1)) % (2 * size - 2)
    mirrored = torch.minimum(places, 2 * size - 2 - places).to(x.device)
    bands = x.new_zeros(4, size, size).scatter_add(2, mirrored.expand(4, -1, -1), filters[:, None].expand(-1, size, -1))
    matrices = torch.einsum("nb,bij->nij", gains, bands)[:, None]
    return matrices @ x @ matrices.mT


def cut_out(x: Tensor, centres: Tensor, side: float) -> Tensor:
    """x with a square of mid-grey at `centres` [N,2] (x, y); centres and side are fractions of the picture's side."""
    places = (torch.arange(x.shape[-1], device=x.device) + 0.5) / x.shape[-1]
    inside = (places - centres[:, :, None]).abs() < side / 2
    return x.masked_fill((inside[:, 0, None, :] & inside[:, 1, :, None])[:, None], 0.0)
