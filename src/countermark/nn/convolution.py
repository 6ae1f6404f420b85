"""Convolutions, alone and joined with resampling by two, whose gradients differentiate again as fast as convolutions.

torch differentiates a convolution's gradient by a formula for all cases, which loops over groups and takes kernels as
large as the picture. But the three products of a convolution are each other's derivatives: three functions that name
one another are closed under differentiation, and gradients of any order (R1, path length) are made of them.

The mean over 2x2 pixels of a 3x3 convolution is one 4x4 convolution of stride two, and a 3x3 convolution of an image
whose pixels are repeated is one transposed 4x4 convolution: equal results from 4/9 of the multiplications. Weights are
kept as 3x3.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from countermark.core.gradients import weights_wanted


class _Layout(NamedTuple):
    """Stride and padding, the same along both axes, and groups."""

    stride: int
    padding: int
    groups: int

    def gradients(self, y: Tensor, x: Tensor, weight: Tensor, *, in_x: bool) -> Tensor:
        """The gradient in x, or in the weight, for y, that in the output; of the one sought only the shape is read."""
        wanted = [in_x, not in_x, False]
        places = [self.stride] * 2, [self.padding] * 2, [1, 1], False, [0, 0], self.groups
        return torch.ops.aten.convolution_backward(y, x, weight, None, *places, wanted)[0 if in_x else 1]


class _Convolution(torch.autograd.Function):
    """y = weight * x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, layout: _Layout) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.layout = layout
        return F.conv2d(x, weight, None, layout.stride, layout.padding, 1, layout.groups)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        in_x = _Transposed.apply(gradient, weight, x.shape, ctx.layout) if wanted[0] else None
        wanted_weight = wanted[1] and weights_wanted()
        in_weight = _WeightGradient.apply(gradient, x, weight.shape, ctx.layout) if wanted_weight else None
        return in_x, in_weight, None


class _Transposed(torch.autograd.Function):
    """x of the given shape, weight^T * y: the gradient of a convolution in its input."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, weight: Tensor, shape: torch.Size, layout: _Layout) -> Tensor:
        ctx.save_for_backward(y, weight)
        ctx.layout = layout
        return layout.gradients(y, _unwritten(shape, y), weight, in_x=True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        y, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        in_y = _Convolution.apply(gradient, weight, ctx.layout) if wanted[0] else None
        wanted_weight = wanted[1] and weights_wanted()
        in_weight = _WeightGradient.apply(y, gradient, weight.shape, ctx.layout) if wanted_weight else None
        return in_y, in_weight, None, None


class _WeightGradient(torch.autograd.Function):
    """The gradient of a convolution in its weight of the given shape; linear in y and in x."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, shape: torch.Size, layout: _Layout) -> Tensor:
        ctx.save_for_backward(y, x)
        ctx.layout = layout
        return layout.gradients(y, x, _unwritten(shape, x), in_x=False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        y, x = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        in_y = _Convolution.apply(x, gradient, ctx.layout) if wanted[0] else None
        in_x = _Transposed.apply(y, gradient, x.shape, ctx.layout) if wanted[1] else None
        return in_y, in_x, None, None


def _unwritten(shape: torch.Size, like: Tensor) -> Tensor:
    """A tensor whose shape and memory order alone are read."""
    channels_last = like.is_contiguous(memory_format=torch.channels_last)
    order = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=order)


def _autocast(*tensors: Tensor) -> list[Tensor]:
    """In the type that autocast has for convolutions, where it is on."""
    device = tensors[0].device.type
    if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
        return list(tensors)
    return [tensor.to(torch.get_autocast_dtype(device)) for tensor in tensors]


def conv2d(x: Tensor, weight: Tensor, *, stride: int = 1, padding: int = 0, groups: int = 1) -> Tensor:
    """F.conv2d without a bias: x [N,C,H,W], weight [out,C/groups,K,K]."""
    return _Convolution.apply(*_autocast(x, weight), _Layout(stride, padding, groups))


def conv_transpose2d(x: Tensor, weight: Tensor, *, stride: int = 1, padding: int = 0, groups: int = 1) -> Tensor:
    """F.conv_transpose2d without a bias: x [N,C,H,W], weight [C,out/groups,K,K]."""
    height, width = ((side - 1) * stride - 2 * padding + weight.shape[-1] for side in x.shape[-2:])
    shape = torch.Size([len(x), weight.shape[1] * groups, height, width])
    return _Transposed.apply(*_autocast(x, weight), shape, _Layout(stride, padding, groups))


def _biased(x: Tensor, bias: Tensor | None) -> Tensor:
    return x if bias is None else x + bias.to(x.dtype)[:, None, None]


class Conv2d(nn.Conv2d):
    """nn.Conv2d with square kernels, zero padding and no dilation, differentiated as above."""

    def forward(self, x: Tensor) -> Tensor:
        stride, padding = self.stride[0], int(self.padding[0])
        return _biased(conv2d(x, self.weight, stride=stride, padding=padding, groups=self.groups), self.bias)


def _spread(weight: Tensor) -> Tensor:
    """[..,3,3] convolved with a 2x2 square of ones: [..,4,4]."""
    padded = F.pad(weight, (1, 1, 1, 1))
    return padded[..., 1:, 1:] + padded[..., :-1, 1:] + padded[..., 1:, :-1] + padded[..., :-1, :-1]


def conv_down(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """[N,C,H,W] and a weight [out,C,3,3] to [N,out,H/2,W/2]: zero padding, then the mean over 2x2 pixels."""
    return _biased(conv2d(x, _spread(weight) / 4, stride=2, padding=1), bias)


def conv_up(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """[N,C,H,W] and a weight [out,C,3,3] to [N,out,2H,2W]: every pixel becomes 2x2, then zero padding."""
    return _biased(conv_transpose2d(x, _spread(weight).flip(2, 3).transpose(0, 1), stride=2, padding=1), bias)


class ConvDown(nn.Conv2d):
    """[N,C,H,W] to [N,out,H/2,W/2]: a 3x3 convolution with zero padding, then the mean over 2x2 pixels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return conv_down(x, self.weight, self.bias)


class ConvUp(nn.Conv2d):
    """[N,C,H,W] to [N,out,2H,2W]: every pixel becomes 2x2, then a 3x3 convolution with zero padding."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return conv_up(x, self.weight, self.bias)
