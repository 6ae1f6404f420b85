"""Low-pass filters, and resampling by two with them; zeros lie outside a picture.

A filter is a depthwise convolution, which a CPU does quickly in channels_last alone; pictures are brought into that
order. Its gradient is given as the adjoint filter, whose gradient is the filter again: R1, R2 and path lengths
differentiate twice, and the second derivatives of torch's own depthwise convolutions are slow.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from countermark.core.precision import full_precision


def low_pass_kernel(taps: tuple[float, ...]) -> Tensor:
    """The separable filter [K,K] of the one-dimensional `taps`, normalised to sum 1."""
    row = torch.tensor(taps)
    return torch.outer(row, row) / row.sum() ** 2


KERNEL = low_pass_kernel((1, 3, 3, 1))  # of the style-based networks


class _Filter(torch.autograd.Function):
    """[N,C,H,W] and kernel [K,K] to every `stride`-th pixel of their convolution, with `padding` zeros around.

    H and W are such that the strides end with the picture: H + 2 padding - K is a multiple of `stride`.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(kernel)
        ctx.stride, ctx.padding = stride, padding
        return _depthwise(x, kernel.flip(0, 1), stride, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return _Adjoint.apply(*gradients, *ctx.saved_tensors, ctx.stride, ctx.padding), None, None, None


class _Adjoint(torch.autograd.Function):
    """Of the filter: zeros between pixels, then the convolution with the kernel the other way round."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, kernel: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(kernel)
        ctx.stride, ctx.padding = stride, padding
        if stride > 1:
            height, width = (stride * (side - 1) + 1 for side in y.shape[2:])
            shape = (*y.shape[:2], height, width)
            spread = torch.empty(shape, dtype=y.dtype, device=y.device, memory_format=torch.channels_last).zero_()
            spread[..., ::stride, ::stride] = y
            y = spread
        return _depthwise(y, kernel, 1, len(kernel) - 1 - padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return _Filter.apply(*gradients, *ctx.saved_tensors, ctx.stride, ctx.padding), None, None, None


def _depthwise(x: Tensor, kernel: Tensor, stride: int, padding: int) -> Tensor:
    channels = x.shape[1]
    weight = kernel.to(x).repeat(channels, 1, 1, 1)
    with full_precision(x):
        x = x.contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, weight, stride=stride, padding=padding, groups=channels)


def blur(x: Tensor, kernel: Tensor, padding: int) -> Tensor:
    """[N,C,H,W] filtered by `kernel` [K,K], to [N,C,H+2 padding-K+1,W+2 padding-K+1]."""
    return _Filter.apply(x, kernel, 1, padding)


def downsample(x: Tensor, kernel: Tensor) -> Tensor:
    """[N,C,H,W] to [N,C,H/2,W/2]: low-pass filter, then every second pixel. H, W and the kernel's side are even."""
    return _Filter.apply(x, kernel, 2, len(kernel) // 2 - 1)


def upsample(x: Tensor, kernel: Tensor) -> Tensor:
    """[N,C,H,W] to [N,C,2H,2W]: zeros between pixels, then the low-pass filter, with gain 4 to keep the mean."""
    return _Adjoint.apply(x, 4 * kernel, 2, len(kernel) // 2 - 1)


class _Resample(nn.Module):
    """Holds `kernel` [K,K], K even and of sum 1."""

    kernel: Tensor

    def __init__(self, taps: tuple[float, ...] = (1, 3, 3, 1)) -> None:
        super().__init__()
        self.register_buffer("kernel", low_pass_kernel(taps))


class Downsample(_Resample):
    """`downsample` with a kernel of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return downsample(x, self.kernel)


class Upsample(_Resample):
    """`upsample` with a kernel of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return upsample(x, self.kernel)
