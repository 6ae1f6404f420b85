"""Gradient penalties in closed form on linear and quadratic discriminators."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from countermark.losses.penalties import (
    clip_weights,
    finite_difference,
    off_diagonal,
    one_centred,
    path_lengths,
    zero_centred,
)
from countermark.models import find


def _pictures(num: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, 2, 3, 3, generator=generator, dtype=torch.float64)


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(0, 1000))
def test_zero_centred_of_a_linear_discriminator(num: int, seed: int) -> None:
    """D(x) = <w, x> has gradient w everywhere: the penalty is ||w||^2 and its gradient in w is 2 w."""
    x, w = _pictures(num, seed).requires_grad_(), _pictures(1, seed + 1).requires_grad_()
    penalty = zero_centred((x * w).sum((1, 2, 3)), x)
    torch.testing.assert_close(penalty, w.square().sum().expand(num))
    (gradient,) = torch.autograd.grad(penalty.mean(), w)
    torch.testing.assert_close(gradient, 2 * w)


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(0, 1000), st.floats(-2, 2))
def test_zero_centred_of_a_quadratic_discriminator(num: int, seed: int, a: float) -> None:
    """D(x) = a/2 ||x||^2 has gradient a x: the penalty is a^2 ||x_n||^2, sample by sample."""
    x = _pictures(num, seed).requires_grad_()
    scale = torch.tensor(a, dtype=torch.float64, requires_grad=True)
    penalty = zero_centred(scale / 2 * x.square().sum((1, 2, 3)), x)
    norms = x.detach().square().sum((1, 2, 3))
    torch.testing.assert_close(penalty, scale**2 * norms)
    (gradient,) = torch.autograd.grad(penalty.sum(), scale)
    torch.testing.assert_close(gradient, 2 * scale * norms.sum())


def test_zero_centred_double_backward_is_exact() -> None:
    """The gradient of the penalty in the weights of a small network equals central differences."""
    torch.manual_seed(0)
    D = nn.Sequential(nn.Flatten(), nn.Linear(18, 5), nn.Softplus(), nn.Linear(5, 1)).double()
    x = _pictures(3).requires_grad_()

    def penalty(weight: Tensor) -> Tensor:
        parameters = {**dict(D.named_parameters()), "1.weight": weight}
        return zero_centred(torch.func.functional_call(D, parameters, x)[:, 0], x).sum()

    assert torch.autograd.gradcheck(penalty, D[1].weight)


def test_zero_centred_needs_a_gradient_path() -> None:
    with pytest.raises(RuntimeError, match="require"):
        zero_centred(torch.ones(2), torch.ones(2, 3))


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(0, 1000), st.floats(0.1, 3))
def test_one_centred_of_a_linear_discriminator(num: int, seed: int, norm: float) -> None:
    """The gradient is w wherever the picture lies, so the penalty is (||w|| - 1)^2."""
    w = _pictures(1, seed)
    w = (w * norm / torch.linalg.vector_norm(w)).requires_grad_()
    x_real, x_fake = _pictures(num, seed + 1), _pictures(num, seed + 2)
    penalty = one_centred(lambda x: (x * w).sum((1, 2, 3)), x_real, x_fake, torch.Generator().manual_seed(seed))
    torch.testing.assert_close(penalty, torch.full((num,), (norm - 1) ** 2, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(penalty.mean(), w)
    torch.testing.assert_close(gradient, 2 * (norm - 1) * w / norm)


def test_one_centred_draws_alpha_per_sample_on_the_segment() -> None:
    seen = []

    def quadratic(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return x.square().sum((1, 2, 3)) / 2

    x_real, x_fake = torch.zeros(64, 1, 2, 2), torch.ones(64, 1, 2, 2)
    penalty = one_centred(quadratic, x_real, x_fake, torch.Generator().manual_seed(3))
    one_minus_alpha = seen[0][:, 0, 0, 0]  # between a black and a white picture the place is the pixels' value
    assert (seen[0] == one_minus_alpha[:, None, None, None]).all()
    assert one_minus_alpha.unique().numel() > 60
    assert 0 <= one_minus_alpha.min() < 0.1
    assert 0.9 < one_minus_alpha.max() <= 1
    torch.testing.assert_close(penalty.detach(), (2 * one_minus_alpha - 1).square())


def test_one_centred_of_a_constant_discriminator_has_finite_gradients() -> None:
    w = torch.zeros(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    penalty = one_centred(lambda x: (x * w).sum((1, 2, 3)), _pictures(2), _pictures(2, 1), torch.Generator())
    penalty.sum().backward()
    assert penalty.tolist() == [1, 1]
    assert w.grad is not None
    assert w.grad.isfinite().all()


def test_clip_weights() -> None:
    module = nn.Linear(3, 2)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[-5.0, -0.01, 0.0], [0.005, 0.01, 5.0]]))
    clip_weights(module, 0.01)
    torch.testing.assert_close(module.weight.detach(), torch.tensor([[-0.01, -0.01, 0.0], [0.005, 0.01, 0.01]]))
    assert module.weight.requires_grad
    assert module.bias.abs().max() <= 0.01


def test_off_diagonal_by_hand() -> None:
    """Rows (1, 0) and (1, 1) have the Gram matrix ((1, 1), (1, 2)), whose diagonal does not count."""
    weight = torch.tensor([[1.0, 0.0], [1.0, 1.0]], requires_grad=True)
    penalty = off_diagonal([weight, torch.eye(3) * 5])
    assert penalty.item() == 2
    (gradient,) = torch.autograd.grad(penalty, weight)
    assert torch.equal(gradient, 4 * torch.tensor([[0.0, 1.0], [1.0, 0.0]]) @ weight)


def test_off_diagonal_takes_a_row_for_each_output_channel() -> None:
    weight = torch.randn(3, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    expected = sum((weight[i] * weight[j]).sum() ** 2 for i in range(3) for j in range(3) if i != j)
    torch.testing.assert_close(off_diagonal([weight]), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert off_diagonal([weight]).dtype == torch.float32


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 1000))
def test_path_lengths_of_a_linear_generator(num: int, num_ws: int, seed: int) -> None:
    """Pictures A sum_l w_l have the Jacobian A in every layer: lengths are |A^T y| / sqrt(H W)."""
    stream = torch.Generator().manual_seed(seed)
    matrix = torch.randn(2 * 3 * 5, 4, generator=stream, dtype=torch.float64).requires_grad_()
    ws = torch.randn(num, num_ws, 4, generator=stream, dtype=torch.float64).requires_grad_()
    pictures = (ws.sum(1) @ matrix.T).view(num, 2, 3, 5)
    lengths = path_lengths(pictures, ws, torch.Generator().manual_seed(seed + 1))
    y = torch.randn(num, 2, 3, 5, generator=torch.Generator().manual_seed(seed + 1)).double().flatten(1)
    expected = (y @ matrix).norm(dim=1) / 15**0.5
    torch.testing.assert_close(lengths, expected)
    (ours,) = torch.autograd.grad(lengths.sum(), matrix)
    (theirs,) = torch.autograd.grad(expected.sum(), matrix)
    torch.testing.assert_close(ours, theirs)


def test_finite_differences_are_the_squared_norm_on_average() -> None:
    """On D(x) = <w, x> one draw gives (w . v)^2 whatever the step: mean ||w||^2, variance 2 ||w||^4."""
    w = _pictures(1)
    x = _pictures(1).expand(20_000, -1, -1, -1)
    found = finite_difference(lambda x: (x.double() * w).sum((1, 2, 3)), x, torch.Generator().manual_seed(0))
    norm = w.square().sum().item()
    assert found.mean().item() == pytest.approx(norm, rel=4 * 2**0.5 / 20_000**0.5)
    assert found.std().item() == pytest.approx(2**0.5 * norm, rel=0.1)


def _exact_and_estimated(D: nn.Module, x: Tensor) -> tuple[float, float]:
    """(estimate over exact penalty, cosine of their gradients in D's weights)."""
    leaf = x.clone().requires_grad_()
    penalties = zero_centred(D(leaf).flatten(), leaf), finite_difference(lambda x: D(x).flatten(), x, _stream(2))
    weights = [p for p in D.parameters() if p.ndim > 1]
    found = [torch.autograd.grad(p.mean(), weights, allow_unused=True) for p in penalties]
    one, other = (torch.cat([g.flatten() for g in gradients if g is not None]) for gradients in found)
    ratio = penalties[1].mean().item() / penalties[0].mean().item()
    return ratio, torch.cosine_similarity(one, other, dim=0).item()


def _stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_finite_differences_have_the_gradient_of_a_smooth_discriminator_s_penalty() -> None:
    torch.manual_seed(0)
    D = nn.Sequential(nn.Flatten(), nn.Linear(18, 32), nn.Softplus(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
    ratio, cosine = _exact_and_estimated(D, torch.randn(20_000, 2, 3, 3, generator=_stream(1)))
    assert ratio == pytest.approx(1, abs=0.03)
    assert cosine > 0.995


@pytest.mark.parametrize(("name", "least_cosine"), [("r3gan", 0.98), ("stylegan2", 0.75), ("wgan_gp", 0.75)])
def test_finite_differences_on_discriminators_with_kinks(name: str, least_cosine: float) -> None:
    """The norm to 10%; the gradient holds the kinks, which double backward leaves out, and points the same way."""
    spec = find(name)
    torch.manual_seed(0)
    tiny = dataclasses.replace(spec.presets["tiny"], num_classes=0)
    x = torch.rand(4000, tiny.channels, tiny.size, tiny.size, generator=_stream(1)) * 2 - 1
    ratio, cosine = _exact_and_estimated(spec.build(tiny)["D"].eval(), x)
    assert ratio == pytest.approx(1, abs=0.1)
    assert cosine > least_cosine


def test_the_error_of_finite_differences_falls_with_the_square_of_the_step() -> None:
    """D(x) = x^3 at 1: ((1+hv)^3 - (1-hv)^3)/2h = 3v + h^2 v^3, so the mean is 9 + 18 h^2 + 15 h^4 for normal v."""
    x = torch.ones(400_000, 1, dtype=torch.float64)

    def mean(step: float) -> float:
        draws = finite_difference(lambda x: x[:, 0].double() ** 3, x, torch.Generator().manual_seed(0), step)
        return draws.mean().item()

    base = mean(0.01)
    for step in (0.3, 0.6):
        expected = 18 * (step**2 - 1e-4) + 15 * step**4
        assert mean(step) - base == pytest.approx(expected, rel=0.05)
