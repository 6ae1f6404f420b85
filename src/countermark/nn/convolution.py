"""3x3 convolutions joined with resampling by two.

The mean over 2x2 pixels of a 3x3 convolution is one 4x4 convolution of stride two, and a 3x3 convolution of an image
whose pixels are repeated is one transposed 4x4 convolution: equal results from 4/9 of the multiplications. Weights are
kept as 3x3.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def _spread(weight: Tensor) -> Tensor:
    """[..,3,3] convolved with a 2x2 square of ones: [..,4,4]."""
    padded = F.pad(weight, (1, 1, 1, 1))
    return padded[..., 1:, 1:] + padded[..., :-1, 1:] + padded[..., 1:, :-1] + padded[..., :-1, :-1]


class ConvDown(nn.Conv2d):
    """[N,C,H,W] to [N,out,H/2,W/2]: a 3x3 convolution with zero padding, then the mean over 2x2 pixels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, _spread(self.weight) / 4, self.bias, stride=2, padding=1)


class ConvUp(nn.Conv2d):
    """[N,C,H,W] to [N,out,2H,2W]: every pixel becomes 2x2, then a 3x3 convolution with zero padding."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        weight = _spread(self.weight).flip(2, 3).transpose(0, 1)
        return F.conv_transpose2d(x, weight, self.bias, stride=2, padding=1)
