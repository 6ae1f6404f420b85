"""Joined convolutions against the two operations that they join."""

import torch
import torch.nn.functional as F

from countermark.nn.convolution import ConvDown, ConvUp


def _picture(side: int) -> torch.Tensor:
    return torch.randn(2, 3, side, side + 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_down_is_a_convolution_and_a_mean() -> None:
    layer, x = ConvDown(3, 5).double(), _picture(6)
    torch.testing.assert_close(layer(x), F.avg_pool2d(F.conv2d(x, layer.weight, layer.bias, padding=1), 2))


def test_up_is_a_convolution_of_repeated_pixels() -> None:
    layer, x = ConvUp(3, 5).double(), _picture(4)
    repeated = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(layer(x), F.conv2d(repeated, layer.weight, layer.bias, padding=1))


def test_weights_are_three_by_three() -> None:
    assert ConvDown(3, 5).weight.shape == ConvUp(3, 5).weight.shape == (5, 3, 3, 3)


def test_second_derivatives() -> None:
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    for layer in (ConvDown(1, 2).double(), ConvUp(1, 2).double()):
        assert torch.autograd.gradgradcheck(lambda x, layer=layer: layer(x).square(), x)
