"""Convolutions against torch's, in every order of differentiation, and joined ones against what they join."""

import pytest
import torch
import torch.nn.functional as F

from countermark.core.gradients import input_gradient
from countermark.nn import convolution
from countermark.nn.convolution import Conv2d, ConvDown, ConvUp, conv_transpose2d


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


# kernel, stride, padding, groups
LAYOUTS = [(3, 1, 1, 1), (3, 1, 1, 2), (4, 2, 1, 1), (1, 1, 0, 4), (3, 2, 1, 1), (4, 1, 0, 4)]


@pytest.mark.parametrize(("kernel", "stride", "padding", "groups"), LAYOUTS)
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_equals_torch_and_its_second_derivatives(
    kernel: int, stride: int, padding: int, groups: int, order: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = Conv2d(4, 8, kernel, stride, padding, groups=groups).double()
    x = torch.randn(2, 4, 8, 7, generator=generator, dtype=torch.float64).contiguous(memory_format=order)
    results = []
    for own in (True, False):
        point = x.clone().requires_grad_()
        layer.zero_grad()
        y = layer(point) if own else F.conv2d(point, layer.weight, layer.bias, stride, padding, 1, groups)
        (slope,) = torch.autograd.grad(y.tanh().sum(), point, create_graph=True)
        (slope.square().sum() + y.sum()).backward()
        results.append([y, slope, point.grad, layer.weight.grad, layer.bias.grad])
    for ours, torchs in zip(*results, strict=True):
        torch.testing.assert_close(ours, torchs)


@pytest.mark.parametrize(("kernel", "stride", "padding", "groups"), LAYOUTS)
def test_the_transposed_one_too(kernel: int, stride: int, padding: int, groups: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 5, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 4 // groups, kernel, kernel, generator=generator, dtype=torch.float64, requires_grad=True)
    layout = {"stride": stride, "padding": padding, "groups": groups}
    torch.testing.assert_close(
        conv_transpose2d(x, weight, **layout),
        F.conv_transpose2d(x, weight, **layout),  # type: ignore[arg-type]
    )
    small = x[:1].detach().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x, w: conv_transpose2d(x, w, **layout).square(), (small, weight))


def test_under_autocast_both_factors_are_rounded() -> None:
    x, layer = torch.randn(1, 3, 8, 8), Conv2d(3, 5, 3, padding=1)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
        torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight, layer.bias, padding=1), atol=0.02, rtol=0.02)


def test_penalties_on_inputs_cost_no_gradients_in_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    sought = []
    gradients = convolution._Layout.gradients
    monkeypatch.setattr(
        convolution._Layout, "gradients", lambda *args, in_x: sought.append(in_x) or gradients(*args, in_x=in_x)
    )
    layer, x = Conv2d(3, 5, 3, padding=1), torch.randn(1, 3, 6, 6, requires_grad=True)
    slope = input_gradient(layer(x).tanh(), x)
    assert sought == [True]
    slope.square().sum().backward()
    assert False in sought
    assert layer.weight.grad is not None
