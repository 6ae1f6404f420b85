import numpy as np
import pytest

from countermark.metrics.variety import (
    IDENTICAL,
    chance_of_copies,
    coverage,
    distinct,
    duplicates,
    memorised,
    originals,
)
from tests.metrics.made import gaussian


def line(*places: float) -> np.ndarray:
    return np.array(places, dtype=float)[:, None]


def test_only_the_first_of_those_within_a_radius_is_kept() -> None:
    # 0.9 is near 0, which is kept; 1.8 is near 0.9, which is not.
    assert distinct(line(0, 0.9, 1.8, 5), 1.0).tolist() == [0, 2, 3]


def test_copies_exact_or_nearly_are_no_originals() -> None:
    x = gaussian(50, 20, seed=0)
    near = x[:5] + 0.005 * gaussian(5, 20, seed=1)
    assert originals(np.concatenate([x, x[:10], near])).tolist() == list(range(50))


def test_twins_by_hand() -> None:
    # Neighbours among the reals are 10 apart, so fakes are twins within 1: 0, 0.5 and 0.9 are one picture.
    real, fake = line(*range(0, 40, 10)), line(0, 0.5, 0.9, 30)
    expected = 4 * (1 - 0.75**4)
    assert duplicates(real, fake) == pytest.approx(1 - 2 / expected)


def test_reals_have_no_twins_and_one_picture_has_only_twins() -> None:
    x = gaussian(200, 30, seed=0)
    assert duplicates(x[:136], x[136:]) == 0.0
    assert duplicates(x, np.repeat(x[:1], 64, 0)) == pytest.approx(1 - 1 / 64, abs=0.01)


def test_pictures_that_differ_by_rounding_are_identical_and_those_that_differ_a_little_are_twins() -> None:
    x = gaussian(200, 30, seed=0).astype(np.float32)
    same = np.repeat(x[:1], 64, 0)
    rounded, little = (same * (1 + size * gaussian(64, 30, seed=1).astype(np.float32)) for size in (1e-7, 1e-2))
    assert duplicates(x, rounded, IDENTICAL) > 0.95
    assert duplicates(x, little, IDENTICAL) == 0.0
    assert duplicates(x, little) > 0.95


def test_draws_from_a_small_set_are_no_twins_of_a_generator_s_making() -> None:
    x = gaussian(15, 30, seed=0)
    draws = x[np.random.default_rng(0).integers(15, size=64)]
    assert duplicates(x, draws) == 0.0


def test_coverage_of_cells_by_hand() -> None:
    # Centres 0 and 10; the other reals lie in both cells, the fakes in one.
    assert coverage(line(0, 10, 1, 9), line(2, 3, 4)) == 0.5
    assert coverage(line(0, 10, 1, 9), line(2, 8)) == 1.0


def test_half_the_modes_are_half_the_coverage() -> None:
    modes = 100 * gaussian(8, 30, seed=0)
    rng = np.random.default_rng(0)
    real = modes[rng.integers(8, size=400)] + gaussian(400, 30, seed=1)
    fake = modes[rng.integers(4, size=64)] + gaussian(64, 30, seed=2)
    assert coverage(real, fake) == pytest.approx(0.5, abs=0.2)


def test_copies_of_training_pictures_are_memorised_and_new_ones_are_not() -> None:
    x = gaussian(300, 50, seed=0)
    train, new = x[:200], x[200:264]
    chance = chance_of_copies(train)
    assert chance < 0.01
    assert memorised(train, new, chance) == 0.0
    assert memorised(train, train[:64] + 0.1 * new, chance) > 0.8
    half = np.concatenate([train[:32], new[:32]])
    assert memorised(train, half, chance) == pytest.approx(0.5 / (1 - 64 / 400), abs=0.05)


def test_many_samples_of_one_training_picture_are_not_many_copies() -> None:
    train = gaussian(200, 50, seed=0)
    assert memorised(train, np.repeat(train[:1], 64, 0), 0.0) < 0.03


def test_pictures_that_are_near_one_another_by_chance_do_not_count() -> None:
    """Collages of few parts are near one another whoever made them."""
    train = np.round(gaussian(400, 2, seed=0))
    x = train + 0.01 * gaussian(400, 2, seed=1)
    chance = chance_of_copies(x)
    assert chance > 0.5
    assert memorised(x, x[:64] + 0.01 * gaussian(64, 2, seed=2), chance) < 0.9
    assert memorised(x, x[:64], 1.0) == 0.0
