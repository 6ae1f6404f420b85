"""Resampling against direct convolution and its own adjoint."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from countermark.nn.resampling import KERNEL, Downsample, Upsample, blur, downsample, low_pass_kernel, upsample

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


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_blur_is_a_convolution_and_its_gradient_the_adjoint(padding: int) -> None:
    stream = torch.Generator().manual_seed(0)
    kernel = torch.randn(4, 4, generator=stream, dtype=torch.float64)  # neither separable nor symmetric
    x = torch.randn(2, 3, 7, 9, generator=stream, dtype=torch.float64).requires_grad_()
    weight = kernel.flip(0, 1).expand(3, 1, -1, -1)
    ours, theirs = blur(x, kernel, padding), F.conv2d(x, weight, padding=padding, groups=3)
    torch.testing.assert_close(ours, theirs)
    y = torch.randn(ours.shape, generator=stream, dtype=torch.float64)
    torch.testing.assert_close(*(torch.autograd.grad((out * y).sum(), x)[0] for out in (ours, theirs)))
    assert torch.autograd.gradgradcheck(
        lambda x: blur(x, kernel, padding).square(), x[:1, :1, :4, :5].detach().requires_grad_()
    )


def test_types_and_memory_orders_make_no_difference() -> None:
    """Gradients too: they pass through the adjoint, which autocast must leave alone as it does the filter."""
    x = torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    for function in (lambda x: blur(x, KERNEL, 2), lambda x: downsample(x, KERNEL), lambda x: upsample(x, KERNEL)):
        plain = x.clone().requires_grad_()
        exact = function(plain)
        (gradient,) = torch.autograd.grad(exact.square().sum(), plain)
        for dtype, order in ((torch.float32, torch.channels_last), (torch.bfloat16, torch.contiguous_format)):
            other = x.to(dtype).contiguous(memory_format=order).requires_grad_()
            with torch.autocast("cpu", torch.bfloat16):
                found = function(other)
                assert found.dtype == dtype
                (moved,) = torch.autograd.grad(found.float().square().sum(), other)
            tolerance = 1e-5 if dtype == torch.float32 else 0.03
            torch.testing.assert_close(found.float(), exact, atol=tolerance, rtol=tolerance)
            torch.testing.assert_close(moved.float(), gradient, atol=2 * tolerance, rtol=2 * tolerance)
