import pytest
from hypothesis import given
from hypothesis import strategies as st

from countermark.core.spec import Schedule, at


@pytest.mark.parametrize(("nimg", "value"), [(-5, 2.0), (0, 2.0), (50, 1.0), (100, 0.0), (10**9, 0.0)])
def test_cosine_schedule_at_known_points(nimg: int, value: float) -> None:
    assert at(Schedule(2.0, 0.0, 100), nimg) == pytest.approx(value, abs=1e-12)


def test_cosine_and_linear_differ_at_a_quarter() -> None:
    assert Schedule(1.0, 0.0, 100).at(25) == pytest.approx(1 - (1 - 2**-0.5) / 2)
    assert Schedule(1.0, 0.0, 100, "linear").at(25) == pytest.approx(0.75)
    assert at(0.3, 25) == 0.3


@given(st.floats(-10, 10), st.floats(-10, 10), st.integers(0, 10**6), st.integers(0, 10**6))
def test_schedules_move_one_way(start: float, end: float, one: int, other: int) -> None:
    schedule = Schedule(start, end, 10**6)
    early, late = sorted((one, other))
    assert abs(schedule.at(late) - end) <= abs(schedule.at(early) - end) + 1e-9
