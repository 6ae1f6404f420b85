"""Leaky ReLU joined with the bias before it: in place, and differentiated any number of times."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from countermark.core.gradients import weights_wanted


class _BiasedLeakyReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, slope: float) -> Tensor:
        y = F.leaky_relu_(x + bias[:, None, None], slope)
        ctx.save_for_backward(y)  # its signs are those of x + bias, since the slope is positive
        ctx.slope = slope
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        in_x = _Slope.apply(gradient, y, ctx.slope)
        in_bias = in_x.sum((0, 2, 3)) if ctx.needs_input_grad[1] and weights_wanted() else None
        return in_x, in_bias, None


class _Slope(torch.autograd.Function):
    """`gradient` where y > 0, times the slope elsewhere: its own derivative."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, y: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(y)
        ctx.slope = slope
        return torch.ops.aten.leaky_relu_backward(gradient, y, slope, True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Slope.apply(gradient, *ctx.saved_tensors, ctx.slope), None, None


def biased_leaky_relu(x: Tensor, bias: Tensor, slope: float = 0.2) -> Tensor:
    """leaky_relu(x + bias) for x [N,C,H,W], bias [C] and a positive slope."""
    return _BiasedLeakyReLU.apply(x, bias.to(x.dtype), slope)
