"""Self-attention between the places of a picture (Zhang et al. 2019, arXiv:1805.08318, section 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from countermark.nn.spectral import Conv2d


class SelfAttention(nn.Module):
    """[N,C,H,W] to the same: x + gamma o(sum over places j of softmax_j(theta_i . phi_j) g_j), gamma 0 at first.

    As in BigGAN (arXiv:1809.11096), which follows the authors' code: queries theta and keys phi have C/8 channels,
    values g have C/2, and keys and values are maxima over 2x2 places, which makes the map four times smaller.
    H and W are even, C is at least 8. Memory is N (HW)^2 / 4 numbers.
    """

    def __init__(self, channels: int, *, eps: float | None) -> None:
        super().__init__()
        self.theta = Conv2d(channels, channels // 8, 1, eps=eps, bias=False)
        self.phi = Conv2d(channels, channels // 8, 1, eps=eps, bias=False)
        self.g = Conv2d(channels, channels // 2, 1, eps=eps, bias=False)
        self.o = Conv2d(channels // 2, channels, 1, eps=eps, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        queries = self.theta(x).flatten(2).transpose(1, 2)  # [N,HW,C/8]
        keys = F.max_pool2d(self.phi(x), 2).flatten(2)  # [N,C/8,HW/4]
        values = F.max_pool2d(self.g(x), 2).flatten(2).transpose(1, 2)  # [N,HW/4,C/2]
        attended = (queries @ keys).softmax(2) @ values
        return x + self.gamma * self.o(attended.transpose(1, 2).unflatten(2, x.shape[2:]))
