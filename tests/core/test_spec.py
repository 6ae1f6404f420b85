import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from countermark.core.spec import RMSprop, Schedule, Settings, Spec, at


@pytest.mark.parametrize(("nimg", "value"), [(-5, 2.0), (0, 2.0), (50, 1.0), (100, 0.0), (10**9, 0.0)])
def test_cosine_schedule_at_known_points(nimg: int, value: float) -> None:
    assert at(Schedule(2.0, 0.0, 100), nimg) == pytest.approx(value, abs=1e-12)


def test_cosine_and_linear_differ_at_a_quarter() -> None:
    assert Schedule(1.0, 0.0, 100).at(25) == pytest.approx(1 - (1 - 2**-0.5) / 2)
    assert Schedule(1.0, 0.0, 100, "linear").at(25) == pytest.approx(0.75)
    assert at(0.3, 25) == 0.3


def test_a_step_waits_and_jumps() -> None:
    schedule = Schedule(0.0, 8.0, 100, "step")
    assert [schedule.at(nimg) for nimg in (0, 50, 99, 100, 10**9)] == [0, 0, 0, 8, 8]


@given(st.floats(-10, 10), st.floats(-10, 10), st.integers(0, 10**6), st.integers(0, 10**6))
def test_schedules_move_one_way(start: float, end: float, one: int, other: int) -> None:
    schedule = Schedule(start, end, 10**6)
    early, late = sorted((one, other))
    assert abs(schedule.at(late) - end) <= abs(schedule.at(early) - end) + 1e-9


def test_rmsprop_by_hand() -> None:
    """Two steps of x <- x - lr g / (sqrt(v) + eps), v <- alpha v + (1 - alpha) g^2, on the loss x^2."""
    x = torch.nn.Parameter(torch.tensor(3.0))
    recipe = RMSprop(lr=Schedule(0.1, 0.0, 10, "linear"), alpha=0.9)
    optimiser = recipe.build([x])
    by_hand, v = 3.0, 0.0
    for nimg in (0, 5):
        optimiser.param_groups[0].update(recipe.options(nimg))
        optimiser.zero_grad()
        x.square().backward()
        optimiser.step()
        gradient = 2 * by_hand
        v = 0.9 * v + 0.1 * gradient**2
        by_hand -= 0.1 * (1 - nimg / 10) * gradient / (v**0.5 + 1e-8)
        assert x.item() == pytest.approx(by_hand, rel=1e-5)


def test_the_preset_that_fits_holds_the_pictures() -> None:
    sizes = {"small": (8, 1), "grey": (32, 1), "colour": (32, 3), "large": (64, 3)}
    presets = {name: Settings(size=size, channels=channels) for name, (size, channels) in sizes.items()}
    spec = Spec("a", "image", "none", 2026, presets, build=dict, phases=tuple)
    wanted = {(8, 3): "small", (9, 1): "grey", (32, 3): "colour", (33, 1): "large", (999, 3): "large"}
    assert {what: spec.fitting_preset(*what) for what in wanted} == wanted
