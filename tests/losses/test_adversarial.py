"""Adversarial losses against hand-computed values and closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from countermark.losses import adversarial as loss

LN2, LN3 = math.log(2), math.log(3)
# sigmoid(log 3) = 3/4, so softplus(log 3) = log 4 and softplus(-log 3) = log 4/3.
REAL = torch.tensor([LN3, 0.0], dtype=torch.float64)
FAKE = torch.tensor([0.0, -LN3], dtype=torch.float64)
LOG4, LOG43 = math.log(4), math.log(4 / 3)

BY_HAND = {
    "saturating_g": (loss.saturating_g(FAKE), [-LN2, -LOG43]),
    "non_saturating_d": (loss.non_saturating_d(REAL, FAKE), [LOG43 + LN2, LN2 + LOG43]),
    "non_saturating_d smoothed": (loss.non_saturating_d(REAL, FAKE, 0.1), [LOG43 + LN2 + 0.1 * LN3, LN2 + LOG43]),
    "non_saturating_g": (loss.non_saturating_g(FAKE), [LN2, LOG4]),
    "wasserstein_d": (loss.wasserstein_d(REAL, FAKE), [-LN3, -LN3]),
    "wasserstein_g": (loss.wasserstein_g(FAKE), [0, LN3]),
    "hinge_d": (loss.hinge_d(REAL, FAKE), [0 + 1, 1 + 0]),
    "hinge_g": (loss.hinge_g(FAKE), [0, LN3]),
    "least_squares_d": (loss.least_squares_d(REAL, FAKE), [(LN3 - 1) ** 2 / 2, 1 / 2 + LN3**2 / 2]),
    "least_squares_d target": (loss.least_squares_d(REAL, FAKE, 0.9), [(LN3 - 0.9) ** 2 / 2, 0.405 + LN3**2 / 2]),
    "least_squares_g": (loss.least_squares_g(FAKE), [1 / 2, (LN3 + 1) ** 2 / 2]),
    "relativistic_d": (loss.relativistic_d(REAL, FAKE), [LOG43, LOG43]),
    "relativistic_g": (loss.relativistic_g(REAL, FAKE), [LOG4, LOG4]),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_hand_computed(name: str) -> None:
    value, expected = BY_HAND[name]
    torch.testing.assert_close(value, torch.tensor(expected, dtype=torch.float64))


def test_minimax_value_by_hand() -> None:
    expected = (-LOG43 - LN2) / 2 + (-LN2 - LOG43) / 2
    assert loss.minimax_value(REAL, FAKE).item() == pytest.approx(expected, abs=1e-12)


counts = st.lists(st.integers(0, 6), min_size=2, max_size=6)


def _outcomes(weights: list[int], total: int) -> Tensor:
    """A sample of size `total` over len(weights) outcomes whose frequencies are exactly weights / sum(weights)."""
    repeats = torch.tensor(weights) * (total // sum(weights))
    return torch.repeat_interleave(torch.arange(len(weights)), repeats)


def _jsd(p: Tensor, q: Tensor) -> float:
    mixture = (p + q) / 2
    return ((torch.xlogy(p, p / mixture) + torch.xlogy(q, q / mixture)).nan_to_num().sum() / 2).item()


@settings(deadline=None)
@given(weights_p=counts, weights_q=counts, nudge=st.floats(-2, 2))
def test_optimal_discriminator_gives_jensen_shannon(weights_p: list[int], weights_q: list[int], nudge: float) -> None:
    """V(D*) = 2 JSD(p || q) - log 4 (arXiv:1406.2661, theorem 1), and no other D does better."""
    num = min(len(weights_p), len(weights_q))
    weights_p, weights_q = [1 + weights_p[0], *weights_p[1:num]], [1 + weights_q[0], *weights_q[1:num]]
    total = math.lcm(sum(weights_p), sum(weights_q))
    p = torch.tensor(weights_p, dtype=torch.float64) / sum(weights_p)
    q = torch.tensor(weights_q, dtype=torch.float64) / sum(weights_q)
    logits = (p.log() - q.log()).nan_to_num(0.0, math.inf, -math.inf)  # D* = p / (p + q); any value where p = q = 0
    x_real, x_fake = _outcomes(weights_p, total), _outcomes(weights_q, total)
    best = loss.minimax_value(logits[x_real], logits[x_fake]).item()
    assert best == pytest.approx(2 * _jsd(p, q) - math.log(4), abs=1e-9)
    other = logits + nudge * torch.linspace(-1, 1, num, dtype=torch.float64)
    assert loss.minimax_value(other[x_real], other[x_fake]).item() <= best + 1e-9


logits_strategy = st.lists(st.tuples(st.floats(-30, 30), st.floats(-30, 30)), min_size=1, max_size=8)


@settings(deadline=None)
@given(logits_strategy)
def test_relations_between_losses(pairs: list[tuple[float, float]]) -> None:
    real, fake = torch.tensor(pairs, dtype=torch.float64).unbind(1)
    torch.testing.assert_close(loss.non_saturating_d(real, fake).mean(), -loss.minimax_value(real, fake))
    torch.testing.assert_close(loss.relativistic_g(real, fake), loss.relativistic_d(fake, real))
    # Relativistic losses see differences only.
    torch.testing.assert_close(loss.relativistic_d(real + 5, fake + 5), loss.relativistic_d(real, fake))
    # The hinge bounds the Wasserstein critic's loss from above.
    assert (loss.hinge_d(real, fake) >= loss.wasserstein_d(real, fake) + 2 - 1e-9).all()


@settings(deadline=None)
@given(st.floats(0.01, 0.4))
def test_smoothing_moves_the_optimum_of_the_reals_only(smoothing: float) -> None:
    """With target t the best logit on reals is logit(t); the fakes' gradient does not change."""
    best = torch.tensor([math.log((1 - smoothing) / smoothing)], dtype=torch.float64, requires_grad=True)
    fake = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    at_best, at_fake = torch.autograd.grad(loss.non_saturating_d(best, fake, smoothing).sum(), (best, fake))
    assert at_best.item() == pytest.approx(0, abs=1e-9)
    assert at_fake.item() == pytest.approx(torch.sigmoid(fake).item())


def test_no_overflow_for_sure_discriminators() -> None:
    real, fake = torch.tensor([200.0, -200.0]), torch.tensor([-200.0, 200.0])
    for value in (loss.non_saturating_d(real, fake, 0.1), loss.relativistic_d(real, fake), loss.non_saturating_g(fake)):
        assert value.isfinite().all()
