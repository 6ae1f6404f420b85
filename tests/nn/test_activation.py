"""The joined activation against the two operations that it joins."""

import torch
import torch.nn.functional as F

from countermark.nn.activation import biased_leaky_relu


def test_equals_its_parts() -> None:
    x, bias = torch.randn(2, 3, 4, 5), torch.randn(3)
    expected = F.leaky_relu(x + bias[:, None, None], 0.1)
    torch.testing.assert_close(biased_leaky_relu(x, bias, 0.1), expected)


def test_the_picture_that_comes_in_stays_as_it_is() -> None:
    x, bias = torch.randn(1, 3, 4, 4), torch.zeros(3)
    before = x.clone()
    biased_leaky_relu(x, bias)
    assert torch.equal(x, before)


def test_first_and_second_derivatives() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 2, 3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, b: biased_leaky_relu(x, b, 0.2), (x, bias))
    assert torch.autograd.gradgradcheck(lambda x, b: biased_leaky_relu(x, b, 0.2).square(), (x, bias))
