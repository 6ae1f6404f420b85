"""Resampling against direct convolution and its own adjoint."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from countermark.nn.resampling import Downsample, Upsample, low_pass_kernel

LOPSIDED = (0.5, 3.0, 2.0, 1.0)


@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1), LOPSIDED, (1, 5, 10, 10, 5, 1)])
@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 2, 4, 10)])
def test_equals_convolution(taps: tuple[float, ...], shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kernel = low_pass_kernel(taps).double()
    weight = kernel.flip(0, 1).expand(shape[1], 1, -1, -1)
    padding = len(taps) // 2 - 1
    down, up = Downsample(taps).double(), Upsample(taps).double()
    torch.testing.assert_close(down(x), F.conv2d(x, weight, stride=2, padding=padding, groups=shape[1]))
    expected = F.conv_transpose2d(x, 4 * weight, stride=2, padding=padding, groups=shape[1])
    torch.testing.assert_close(up(x), expected)


def test_keeps_the_mean_away_from_the_border() -> None:
    ones = torch.ones(1, 1, 8, 8)
    torch.testing.assert_close(Upsample()(ones)[..., 2:-2, 2:-2], torch.ones(1, 1, 12, 12))
    torch.testing.assert_close(Downsample()(ones)[..., 1:-1, 1:-1], torch.ones(1, 1, 2, 2))


def test_up_is_four_times_the_adjoint_of_down() -> None:
    x, y = torch.randn(1, 2, 8, 8).double(), torch.randn(1, 2, 4, 4).double()
    down, up = Downsample(LOPSIDED).double(), Upsample(LOPSIDED).double()
    torch.testing.assert_close(4 * (down(x) * y).sum(), (x * up(y)).sum())


@pytest.mark.parametrize("module", [Downsample(), Upsample()])
def test_second_derivatives(module: nn.Module) -> None:
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: module.double()(x).square(), x)
