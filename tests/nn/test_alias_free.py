"""Filters against SciPy's, and the filtered leaky ReLU and the blur against their definitions."""

import math

import numpy as np
import pytest
import scipy.signal
import scipy.special
import torch
import torch.nn.functional as F
from torch import Tensor

from countermark.nn.alias_free import filtered_leaky_relu, gaussian_blur, low_pass, radial_low_pass

# taps, cutoff, width, rate: Kaiser's formula has three branches, for strong, middle and no attenuation
DESIGNS = [(12, 2.0, 12.0, 32.0), (24, 16.0, 12.5, 256.0), (8, 100.0, 60.0, 512.0), (6, 1.0, 0.01, 8.0)]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("design", DESIGNS)
def test_low_pass_is_scipy_s(design: tuple[int, float, float, float]) -> None:
    num_taps, cutoff, width, rate = design
    expected = scipy.signal.firwin(num_taps, cutoff, width=width, fs=rate)
    taps = low_pass(num_taps, cutoff=cutoff, width=width, rate=rate)
    np.testing.assert_allclose(taps.numpy(), expected, atol=1e-7)


@pytest.mark.parametrize("design", DESIGNS)
def test_radial_low_pass_is_a_windowed_jinc(design: tuple[int, float, float, float]) -> None:
    num_taps, cutoff, width, rate = design
    beta = scipy.signal.kaiser_beta(scipy.signal.kaiser_atten(num_taps, width / (rate / 2)))
    window = np.kaiser(num_taps, beta)
    expected = np.empty((num_taps, num_taps))
    for y in range(num_taps):
        for x in range(num_taps):
            radius = math.hypot(x - (num_taps - 1) / 2, y - (num_taps - 1) / 2) / rate
            expected[y, x] = scipy.special.j1(2 * math.pi * cutoff * radius) / radius * window[y] * window[x]
    taps = radial_low_pass(num_taps, cutoff=cutoff, width=width, rate=rate)
    np.testing.assert_allclose(taps.numpy(), expected / expected.sum(), atol=1e-7)
    assert torch.equal(taps, taps.T)
    assert torch.equal(taps, taps.rot90())


def test_a_filter_passes_what_it_should() -> None:
    """Amplitude 1 below the transition, half at the cutoff, next to none above."""
    taps = low_pass(48, cutoff=8.0, width=6.0, rate=64.0).double().numpy()
    _, response = scipy.signal.freqz(taps, worN=np.array([0.0, 4.0, 8.0, 12.0, 24.0]), fs=64.0)
    assert np.abs(response) == pytest.approx([1, 1, 0.5, 0, 0], abs=0.01)


@pytest.mark.parametrize(("up", "down", "size", "out_size"), [(2, 2, 9, 9), (4, 2, 9, 12), (4, 4, 7, 6), (2, 2, 10, 6)])
@pytest.mark.parametrize("radial", [False, True])
def test_filtered_leaky_relu_is_what_it_says(up: int, down: int, size: int, out_size: int, radial: bool) -> None:
    """Zeros between pixels and around, a convolution, the nonlinearity, another one, and every `down`-th pixel."""
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    up_filter, down_filter = torch.rand(6 * up).double(), torch.rand(6 * down).double()
    kernel = torch.rand(6 * down, 6 * down).double() if radial else torch.outer(down_filter, down_filter)
    expected = torch.empty(2, 3, out_size, out_size, dtype=torch.float64)
    for n in range(2):
        for c in range(3):
            spread = np.zeros((up * (size - 1) + 1,) * 2)
            spread[::up, ::up] = x[n, c]
            high = scipy.signal.convolve2d(spread, up**2 * np.outer(up_filter, up_filter))
            high = F.leaky_relu(torch.from_numpy(high), 0.2).numpy() * math.sqrt(2)
            needed = down * (out_size - 1) + 6 * down
            first = (len(high) - needed) // 2
            low = scipy.signal.correlate2d(high[first:, first:], kernel, "valid")
            expected[n, c] = torch.from_numpy(low[::down, ::down][:out_size, :out_size])
    filters = up_filter.float(), (kernel if radial else down_filter).float()
    found = filtered_leaky_relu(x.float(), *filters, up=up, down=down, out_size=out_size)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4 * expected.std().item())


def test_filters_stay_in_single_precision() -> None:
    taps = low_pass(12, cutoff=4.0, width=6.0, rate=32.0)
    x = torch.randn(1, 2, 8, 8)
    plain = filtered_leaky_relu(x, taps, taps, up=2, down=2, out_size=8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(filtered_leaky_relu(x, taps, taps, up=2, down=2, out_size=8), plain)


def test_gradients_of_the_filtered_leaky_relu() -> None:
    """Against differences along random directions: between its kinks it is linear."""
    taps = low_pass(12, cutoff=4.0, width=6.0, rate=32.0)
    x, direction, weights = torch.randn(3, 1, 2, 6, 6)

    def value(x: Tensor) -> Tensor:
        return (filtered_leaky_relu(x, taps, taps, up=2, down=2, out_size=6) * weights).double().sum()

    (gradient,) = torch.autograd.grad(value(x.requires_grad_()), x)
    slope = (value(x.detach() + 5e-4 * direction) - value(x.detach() - 5e-4 * direction)) / 1e-3
    assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=1e-2)


def test_blur_is_a_gaussian_convolution() -> None:
    x = torch.randn(2, 3, 9, 12)
    taps = torch.exp(-0.5 * (torch.arange(-4.0, 5.0) / 1.5) ** 2)
    kernel = torch.outer(taps, taps) / taps.sum() ** 2
    expected = F.conv2d(x, kernel.expand(3, 1, 9, 9), padding=4, groups=3)
    torch.testing.assert_close(gaussian_blur(x, 1.5), expected)


def test_no_blur_and_a_blur_wider_than_the_picture() -> None:
    x = torch.rand(1, 1, 6, 6)
    assert gaussian_blur(x, 0.0) is x
    assert gaussian_blur(x, 0.33) is x
    wide = gaussian_blur(x, 10.0)
    assert 0 < wide.min() < wide.max() < 0.1  # most of what it sees are the zeros outside


def test_blur_differentiates_twice() -> None:
    x = torch.randn(1, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: gaussian_blur(x, 1.0).square(), x)
