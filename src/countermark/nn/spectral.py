"""Spectral normalisation (Miyato et al. 2018, arXiv:1802.05957, section 2.1) and the layers that take it.

A layer's weight, as a matrix W of one row an output channel, is divided by an estimate of its largest singular value.
Every forward pass in training mode is one step of the power iteration, so passes without gradients and frozen networks
move the estimate too, as in BigGAN's code (ajbrock/BigGAN-PyTorch). In evaluation mode nothing moves.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from countermark.core.precision import full_precision
from countermark.nn.convolution import conv_down, conv_up


def _matrix(weight: Tensor) -> Tensor:
    """[out,...] to [out,-1]. Columns come as they lie in memory (channels_last): their order changes no singular value.

    A copy would cost as much as the power iteration's step.
    """
    return (weight if weight.is_contiguous() else weight.movedim(1, -1)).flatten(1)


class SpectralNorm(nn.Module):
    """Divides weights [num_rows,...] by sigma(W), in float32 whatever autocast says; sigma's gradient is that of u W v.

    `u` [1,num_rows] is the left singular vector so far; `sv` [1] the last sigma in training, for those who watch it:
    singular values that explode foretell a collapse (arXiv:1809.11096, section 4.1). eps bounds the vectors' norms.
    """

    u: Tensor
    sv: Tensor

    def __init__(self, num_rows: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("u", torch.randn(1, num_rows))
        self.register_buffer("sv", torch.ones(1))

    def forward(self, weight: Tensor) -> Tensor:
        with full_precision(weight):
            W = _matrix(weight)
            v = F.normalize(self.u @ W.detach(), eps=self.eps)
            Wv = v @ W.T
            u = F.normalize(Wv.detach(), eps=self.eps)
            sigma = (u * Wv).sum()
            if self.training:
                self.u.copy_(u)  # the graph keeps u itself, so a second pass in one step does no harm
                self.sv.copy_(sigma.detach())
            return weight / sigma


def _normalising(weight: Tensor, eps: float | None) -> nn.Module:
    return nn.Identity() if eps is None else SpectralNorm(len(weight), eps)


class Conv2d(nn.Conv2d):
    """A convolution [N,in,H,W] to [N,out,H,W] with zero padding; eps None leaves out the normalisation."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 3, *, eps: float | None, bias: bool = True
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2, bias=bias)
        self.spectral = _normalising(self.weight, eps)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.spectral(self.weight), self.bias, padding=self.padding)


class ConvUp(Conv2d):
    """[N,in,H,W] to [N,out,2H,2W]: every pixel becomes 2x2, then a 3x3 convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return conv_up(x, self.spectral(self.weight), self.bias)


class ConvDown(Conv2d):
    """[N,in,H,W] to [N,out,H/2,W/2]: a 3x3 convolution, then the mean over 2x2 pixels."""

    def forward(self, x: Tensor) -> Tensor:
        return conv_down(x, self.spectral(self.weight), self.bias)


class Linear(nn.Linear):
    """[N,in] to [N,out]; eps None leaves out the normalisation."""

    def __init__(self, num_in: int, num_out: int, *, eps: float | None, bias: bool = True) -> None:
        super().__init__(num_in, num_out, bias)
        self.spectral = _normalising(self.weight, eps)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.spectral(self.weight), self.bias)


class Embedding(nn.Module):
    """One-hot classes [N,num_classes] to vectors [N,num_dims]; `weight` has a row a class, of which sigma is taken."""

    def __init__(self, num_classes: int, num_dims: int, *, eps: float | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, num_dims))
        self.spectral = _normalising(self.weight, eps)

    def forward(self, c: Tensor) -> Tensor:
        return c @ self.spectral(self.weight)
