"""Leaky ReLU joined with the bias before it and the gain after it: one pass over memory in place of three."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from countermark.core.gradients import weights_wanted


class _BiasedLeakyReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, slope: float, gain: float) -> Tensor:
        y = F.leaky_relu_(x + bias[:, None, None], slope)
        if gain != 1:
            y.mul_(gain)
        ctx.save_for_backward(y)  # its signs are those of x + bias, since slope and gain are positive
        ctx.slopes = slope, gain
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        in_x = _Slope.apply(gradient, y, *ctx.slopes)
        in_bias = in_x.sum((0, 2, 3)) if ctx.needs_input_grad[1] and weights_wanted() else None
        return in_x, in_bias, None, None


class _Slope(torch.autograd.Function):
    """`gradient` times gain where y > 0, times slope * gain elsewhere: its own derivative."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, y: Tensor, slope: float, gain: float) -> Tensor:
        ctx.save_for_backward(y)
        ctx.slopes = slope, gain
        out = torch.ops.aten.leaky_relu_backward(gradient, y, slope, True)
        return out.mul_(gain) if gain != 1 else out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Slope.apply(gradient, *ctx.saved_tensors, *ctx.slopes), None, None, None


def biased_leaky_relu(x: Tensor, bias: Tensor, slope: float = 0.2, gain: float = 1.0) -> Tensor:
    """gain * leaky_relu(x + bias), x [N,C,H,W], bias [C]; slope and gain are positive. Differentiable any times."""
    return _BiasedLeakyReLU.apply(x, bias.to(x.dtype), slope, gain)
