"""Lazy regularisation: what the optimiser and the loss make of the additional steps."""

import math

import pytest
import torch
from torch import Tensor, nn

from countermark.core.seeds import generator
from countermark.core.spec import Settings, Step
from countermark.losses.lazy import R1_INTERVAL, lazy_adam, r1_step


@pytest.mark.parametrize("interval", [4, 16])
def test_the_optimiser_forgets_and_moves_as_much_in_as_many_batches(interval: int) -> None:
    adam = lazy_adam(0.01, interval)
    steps = interval + 1
    assert adam.lr * steps == pytest.approx(0.01 * interval)  # type: ignore[operator]
    assert adam.beta2**steps == pytest.approx(0.99**interval)  # type: ignore[operator]
    assert adam.beta1 == 0


class Quadratic(nn.Module):
    """a/2 ||x||^2, whose gradient is a x."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        return self.a / 2 * x.square().sum((1, 2, 3))


def test_r1_counts_as_often_as_it_is_left_out() -> None:
    D, x = Quadratic(), torch.randn(5, 3, 4, 4, generator=generator(0))
    terms = r1_step(Step({"D": D}, x, None, Settings(size=4), 0, 0, generator(0)), gamma=0.5)
    norms = x.square().sum((1, 2, 3))
    torch.testing.assert_close(terms["r1"], 9 * norms)
    torch.testing.assert_close(terms["loss"], R1_INTERVAL * 0.25 * 9 * norms.mean())
    terms["loss"].backward()
    assert D.a.grad is not None
    assert math.isclose(D.a.grad.item(), R1_INTERVAL * 0.25 * 6 * norms.mean().item(), rel_tol=1e-5)
