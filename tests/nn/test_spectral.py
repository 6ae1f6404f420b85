"""Spectral normalisation against singular values, and the layers that take it against those that do not."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from countermark.nn import convolution
from countermark.nn.spectral import Conv2d, ConvDown, ConvUp, Embedding, Linear, SpectralNorm

EPS = 1e-12


def _weight(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _settled(layer: nn.Module, x: Tensor) -> nn.Module:
    for _ in range(200):
        layer(x)
    return layer.eval()


@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (6, 4, 3, 3)])
def test_sigma_becomes_the_largest_singular_value(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weight, norm = _weight(*shape), SpectralNorm(shape[0], EPS)
    for _ in range(200):
        normalised = norm(weight)
    largest = torch.linalg.svdvals(weight.flatten(1))[0]
    torch.testing.assert_close(normalised, weight / largest)
    torch.testing.assert_close(norm.sv, largest[None])
    left = torch.linalg.svd(weight.flatten(1)).U[:, 0]
    torch.testing.assert_close((norm.u[0] @ left).abs(), torch.tensor(1.0))


def test_one_step_by_hand() -> None:
    """W = diag(3, 4) and u = (1, 0): v = (1, 0), u stays, sigma is 3; u = (1, 1): v = (.6, .8), W v = (1.8, 3.2)."""
    norm, weight = SpectralNorm(2, EPS), torch.diag(torch.tensor([3.0, 4.0]))
    norm.u.copy_(torch.tensor([[1.0, 0.0]]))
    assert torch.equal(norm(weight), weight / 3)
    norm.u.copy_(torch.tensor([[1.0, 1.0]]))
    length = (1.8**2 + 3.2**2) ** 0.5
    torch.testing.assert_close(norm(weight), weight / length)
    torch.testing.assert_close(norm.u, torch.tensor([[1.8, 3.2]]) / length)


def test_evaluation_moves_nothing_and_training_does_without_gradients_too() -> None:
    torch.manual_seed(0)
    norm, weight = SpectralNorm(4, EPS).eval(), _weight(4, 6)
    before = copy.deepcopy(norm.state_dict())
    norm(weight)
    assert all(torch.equal(value, before[key]) for key, value in norm.state_dict().items())
    norm.train()
    with torch.no_grad():
        norm(weight)
    assert not torch.equal(norm.u, before["u"])


def test_gradient_of_a_settled_norm_is_that_of_the_largest_singular_value() -> None:
    torch.manual_seed(0)
    weight, target = _weight(4, 6).double().requires_grad_(), torch.randn(4, 6, dtype=torch.float64)
    norm = SpectralNorm(4, EPS).double()
    for _ in range(500):
        norm(weight.detach())
    (ours,) = torch.autograd.grad((norm(weight) * target).sum(), weight)
    (exact,) = torch.autograd.grad((weight / torch.linalg.svdvals(weight)[0] * target).sum(), weight)
    torch.testing.assert_close(ours, exact)


def test_two_passes_of_one_step_share_a_graph() -> None:
    """D's pass on reals and its pass on fakes, differentiated together, as two losses added."""
    torch.manual_seed(0)
    layer, x = Linear(3, 2, eps=EPS), _weight(4, 3)
    other = copy.deepcopy(layer)
    (layer(x).sum() + layer(2 * x).square().sum()).backward()
    other(x).sum().backward()
    other(2 * x).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, other.weight.grad)
    assert torch.equal(layer.spectral.u, other.spectral.u)


def test_memory_order_changes_nothing() -> None:
    torch.manual_seed(0)
    layer = Conv2d(4, 6, eps=EPS)
    other = copy.deepcopy(layer).to(memory_format=torch.channels_last)
    assert not other.weight.is_contiguous()
    x = _weight(2, 4, 5, 5)
    for _ in range(3):
        torch.testing.assert_close(layer(x), other(x.contiguous(memory_format=torch.channels_last)))
    torch.testing.assert_close(layer.spectral.u, other.spectral.u)


def test_autocast_does_not_round_sigma() -> None:
    torch.manual_seed(0)
    layer = Linear(64, 64, eps=EPS)
    other, x = copy.deepcopy(layer), _weight(2, 64)
    layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert other(x).dtype == torch.bfloat16
    assert torch.equal(layer.spectral.u, other.spectral.u)
    assert torch.equal(layer.spectral.sv, other.spectral.sv)


@pytest.mark.parametrize(
    ("layer", "plain"),
    [
        (lambda eps: Conv2d(4, 6, eps=eps), lambda x, w, b: F.conv2d(x, w, b, padding=1)),
        (lambda eps: Conv2d(4, 6, 1, eps=eps, bias=False), F.conv2d),
        (
            lambda eps: ConvUp(4, 6, eps=eps),
            lambda x, w, b: F.conv2d(F.interpolate(x, scale_factor=2), w, b, padding=1),
        ),
        (lambda eps: ConvDown(4, 6, eps=eps), lambda x, w, b: F.avg_pool2d(F.conv2d(x, w, b, padding=1), 2)),
    ],
    ids=["3x3", "1x1", "up", "down"],
)
def test_convolutions(layer: object, plain: object) -> None:
    torch.manual_seed(0)
    x = _weight(2, 4, 6, 6)
    free = layer(None)  # type: ignore[operator]
    torch.testing.assert_close(free(x), plain(x, free.weight, free.bias))  # type: ignore[operator]
    normalised = _settled(layer(EPS), x)  # type: ignore[operator]
    weight = normalised.weight / torch.linalg.svdvals(normalised.weight.flatten(1))[0]
    torch.testing.assert_close(normalised(x), plain(x, weight, normalised.bias))  # type: ignore[operator]


def test_joined_convolutions_are_those_of_nn_convolution() -> None:
    x = _weight(2, 4, 6, 6)
    for ours, theirs in ((ConvUp, convolution.ConvUp), (ConvDown, convolution.ConvDown)):
        free, known = ours(4, 6, eps=None), theirs(4, 6)
        known.load_state_dict(free.state_dict())
        assert torch.equal(free(x), known(x))


def test_linear_and_embedding() -> None:
    torch.manual_seed(0)
    x = _weight(4, 3)
    linear = _settled(Linear(3, 5, eps=EPS), x)
    weight = linear.weight / torch.linalg.svdvals(linear.weight)[0]
    torch.testing.assert_close(linear(x), x @ weight.T + linear.bias)
    embedding = _settled(Embedding(3, 5, eps=EPS), torch.eye(3))
    rows = embedding.weight / torch.linalg.svdvals(embedding.weight)[0]
    torch.testing.assert_close(embedding(torch.eye(3)[[2, 0]]), rows[[2, 0]])
    assert embedding.spectral.u.shape == (1, 3)
