"""Low-pass filters and the filtered nonlinearity of alias-free networks (Karras et al. 2021, arXiv:2106.12423).

A pointwise nonlinearity makes frequencies that a feature map's sampling rate cannot hold. It is applied at a higher
rate, from which a low-pass filter leads to the rate of the next layer (section 2.1). The filters are designed with
Kaiser's window (the paper's appendix on filters). Theirs are first derivatives only: G needs no others.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from countermark.core.precision import full_precision
from countermark.nn.style import SLOPE


def low_pass(num_taps: int, *, cutoff: float, width: float, rate: float) -> Tensor:
    """The windowed sinc [num_taps] of sum 1: an ideal filter times Kaiser's window.

    cutoff: where half of the amplitude passes; width: of the transition from pass to stop; rate: samples a unit, the
    unit being that of both. num_taps is even.
    """
    times = _times(num_taps) / rate
    return _normalised(torch.sinc(2 * cutoff * times) * _kaiser(num_taps, width / rate))


def radial_low_pass(num_taps: int, *, cutoff: float, width: float, rate: float) -> Tensor:
    """The windowed jinc [num_taps,num_taps] of sum 1, the same in every direction; otherwise as `low_pass`."""
    times = _times(num_taps) / rate
    radius = torch.hypot(times[:, None], times)
    window = _kaiser(num_taps, width / rate)
    return _normalised(torch.special.bessel_j1(2 * math.pi * cutoff * radius) / radius * torch.outer(window, window))


def _times(num_taps: int) -> Tensor:
    """Where the taps lie, in samples about the filter's centre."""
    return torch.arange(num_taps, dtype=torch.float64) - (num_taps - 1) / 2


def _kaiser(num_taps: int, width: float) -> Tensor:
    """Kaiser's window [num_taps] for a transition of `width`, in parts of the sampling rate: Kaiser's own formulas."""
    attenuation_db = 2.285 * (num_taps - 1) * 2 * math.pi * width + 7.95
    if attenuation_db > 50:
        beta = 0.1102 * (attenuation_db - 8.7)
    else:
        excess = max(attenuation_db - 21, 0.0)
        beta = 0.5842 * excess**0.4 + 0.07886 * excess
    places = _times(num_taps) / ((num_taps - 1) / 2)
    return torch.i0(beta * (1 - places.square()).sqrt())


def _normalised(taps: Tensor) -> Tensor:
    return (taps / taps.sum()).to(torch.get_default_dtype())


def filtered_leaky_relu(
    x: Tensor, up_filter: Tensor, down_filter: Tensor, *, up: int, down: int, out_size: int
) -> Tensor:
    """[N,C,S,S] to [N,C,out_size,out_size] about the same centre, in float32 whatever autocast says.

    It is upsampled by `up` with the filter [K], goes through a leaky ReLU of gain sqrt(2), and is downsampled by
    `down`, 2 or more, with a filter [K] or, where that is not separable, [K,K].
    """
    channels = x.shape[1]
    made = up * (x.shape[-1] - 1) + len(up_filter)
    needed = down * (out_size - 1) + len(down_filter)
    crop = (made - needed) // 2  # at both ends
    with full_precision(x):
        row = (up * up_filter).repeat(channels, 1, 1, 1)
        x = F.conv_transpose2d(x.to(row.dtype), row, stride=(1, up), padding=(0, crop), groups=channels)
        x = F.conv_transpose2d(x, row.mT, stride=(up, 1), padding=(crop, 0), groups=channels)
        x = F.leaky_relu_(x, SLOPE)
        if down_filter.ndim == 2:
            kernel = (math.sqrt(2) * down_filter).repeat(channels, 1, 1, 1)
            return F.conv2d(x, kernel, stride=down, groups=channels)
        row = (2**0.25 * down_filter).repeat(channels, 1, 1, 1)
        x = F.conv2d(x, row, stride=(1, down), groups=channels)
        return F.conv2d(x, row.mT, stride=(down, 1), groups=channels)


def gaussian_blur(x: Tensor, deviation: float) -> Tensor:
    """[N,C,H,W] through a Gaussian of `deviation` pixels that ends at three of them; zeros lie outside.

    Along an axis it is a banded matrix, and a product with one is differentiated twice as quickly as once.
    """
    radius = int(3 * deviation)
    if not radius:
        return x
    with full_precision(x):
        return _bands(x.shape[-2], deviation, radius, x) @ x @ _bands(x.shape[-1], deviation, radius, x)


def _bands(size: int, deviation: float, radius: int, like: Tensor) -> Tensor:
    """[size,size]: the Gaussian's taps about the diagonal, in the type of `like`."""
    taps = torch.exp(-(torch.arange(-radius, radius + 1.0) / deviation).square() / 2)
    distances = torch.arange(size)[:, None] - torch.arange(size)
    taps = torch.cat([taps / taps.sum(), torch.zeros(1)])
    return taps[(distances + radius).clamp(-1, 2 * radius + 1)].to(like)
