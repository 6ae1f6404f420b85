"""Sets made by rule: what they hold, that a position alone decides, and how modes are counted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.data.made import Stacked, grid25, ring8

DIGITS = np.arange(10, dtype=np.uint8)[:, None, None, None].repeat(4, 1).repeat(4, 2)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 20_000), st.integers(1, 50), st.integers(1, 7), st.sampled_from(["grid", "stacked"]))
def test_a_position_gives_the_same_row_in_any_batch(position: int, num: int, step: int, which: str) -> None:
    batches = grid25(3) if which == "grid" else Stacked(DIGITS, 3)
    rows = batches.at(position, num, step).images
    assert len(rows) == num
    for i in (0, num - 1):
        assert np.array_equal(rows[i], batches.at(position + i * step, 1).images[0])


def test_seeds_give_other_points() -> None:
    assert not np.array_equal(grid25(0).at(0, 9).images, grid25(1).at(0, 9).images)


@pytest.mark.parametrize(("mixture", "num"), [(grid25(), 25), (ring8(), 8)])
def test_reals_are_of_every_mode_and_of_full_quality(mixture, num: int) -> None:  # type: ignore[no-untyped-def]
    points = mixture.at(0, 2500).images.reshape(-1, 2)
    modes, quality = mixture.found(points)
    assert modes == num
    assert quality == pytest.approx(1 - np.exp(-4.5), abs=0.01)  # a normal point in the plane within three deviations
    distances = np.linalg.norm(points[:, None] - mixture.centres, axis=2).min(1)
    assert np.sqrt((distances**2).mean() / 2) == pytest.approx(mixture.deviation, rel=0.05)


def test_modes_and_quality_by_hand() -> None:
    mixture = grid25()
    near = mixture.centres[:3] + 2.9 * mixture.deviation * np.array([1, 0])
    far = mixture.centres[3:5] + 3.1 * mixture.deviation * np.array([0, 1])
    assert mixture.found(np.concatenate([near, near, far, far])) == (3, 0.6)


def test_stacked_digits_are_drawn_apart_for_each_colour() -> None:
    images = Stacked(DIGITS).at(0, 4000).images
    assert images.shape == (4000, 4, 4, 3)
    modes = images[:, 0, 0] @ np.array([100, 10, 1])
    assert len(set(modes.tolist())) > 970
