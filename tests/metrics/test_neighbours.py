import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.core.errors import UsageError
from countermark.metrics import neighbours
from countermark.metrics.neighbours import density_coverage, precision_recall
from tests.metrics.fidelity import import_fidelity
from tests.metrics.made import gaussian


def line(*places: float) -> np.ndarray:
    return np.array(places, dtype=float)[:, None]


def test_points_on_a_line_by_hand():
    # Radii to the nearest other: real 0, 1, 3 -> 1, 1, 2; fake 0.5, 6, 7 -> 5.5, 1, 1.
    real, fake = line(0, 1, 3), line(0.5, 6, 7)
    assert precision_recall(real, fake, k=1) == (pytest.approx(1 / 3), 1.0)
    # 0.5 lies in the balls of 0 and 1; the ball of 3 holds none.
    assert density_coverage(real, fake, k=1) == (pytest.approx(2 / 3), pytest.approx(2 / 3))


def test_a_point_on_the_edge_is_inside():
    assert precision_recall(line(0, 1), line(2, 3), k=1)[0] == pytest.approx(0.5)


def test_identical_and_distant_sets():
    x = gaussian(40, 5, seed=0)
    assert precision_recall(x, x) == (1.0, 1.0)
    density, coverage = density_coverage(x, x)
    assert coverage == 1.0
    assert density == pytest.approx((5 + 1) / 5)  # each ball holds its k neighbours and its centre
    assert precision_recall(x, x + 100) == (0.0, 0.0)
    assert density_coverage(x, x + 100) == (0.0, 0.0)


def test_a_collapsed_generator_is_precise_and_covers_nothing():
    real = gaussian(60, 5, seed=0) + 50
    fake = np.repeat(real[:1], 60, axis=0)
    precision, recall = precision_recall(real, fake)
    assert precision == 1.0
    assert recall == pytest.approx(1 / 60)
    assert density_coverage(real, fake)[1] < 0.4


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(7, 40), st.integers(7, 40), st.integers(1, 8))
def test_exchange_order_and_rigid_motions(seed, n, m, num_dims):
    real, fake = gaussian(n, num_dims, seed=seed), gaussian(m, num_dims, seed=seed + 1, mean=0.5)
    precision, recall = precision_recall(real, fake)
    assert precision_recall(fake, real) == (recall, precision)
    rotation, _ = np.linalg.qr(gaussian(num_dims, num_dims, seed=seed + 2))
    moved = precision_recall(real[::-1] @ rotation + 1, fake @ rotation + 1)
    assert moved == pytest.approx((precision, recall))
    assert density_coverage(real @ rotation, fake @ rotation) == pytest.approx(density_coverage(real, fake))


@pytest.mark.parametrize(("n", "m", "num_dims"), [(200, 150, 16), (90, 120, 3)])
def test_equals_torch_fidelity(n, m, num_dims):
    import torch

    metric_prc = import_fidelity("metric_prc")
    real, fake = gaussian(n, num_dims, seed=5), gaussian(m, num_dims, seed=6, mean=0.3, std=0.9)
    options = {"prc_neighborhood": 3, "prc_batch_size": 64, "save_cpu_ram": False, "verbose": False}
    expected = metric_prc.prc_features_to_metric(torch.from_numpy(fake), torch.from_numpy(real), **options)
    precision, recall = precision_recall(real, fake)
    assert precision == pytest.approx(expected[metric_prc.KEY_METRIC_PRECISION], rel=1e-6)
    assert recall == pytest.approx(expected[metric_prc.KEY_METRIC_RECALL], rel=1e-6)
    assert 0 < recall < 1


def test_parts_give_the_whole(monkeypatch):
    real, fake = gaussian(50, 4, seed=0), gaussian(45, 4, seed=1, mean=0.4)
    whole = precision_recall(real, fake), density_coverage(real, fake)
    monkeypatch.setattr(neighbours, "_ROWS", 7)
    assert (precision_recall(real, fake), density_coverage(real, fake)) == whole


def test_too_few_samples_are_named():
    with pytest.raises(UsageError, match="fake has 3 samples; this metric needs at least 4"):
        precision_recall(gaussian(9, 2, seed=0), gaussian(3, 2, seed=1))
