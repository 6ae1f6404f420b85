import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.core.errors import UsageError
from countermark.metrics import kernel
from countermark.metrics.kernel import kernel_distance, kernel_distance_of_subsets, kernel_influence
from tests.metrics.fidelity import import_fidelity
from tests.metrics.made import gaussian


def test_two_points_each_by_hand():
    # k(0,1) = 1, k(1,2) = 27; across: k(0,1) = k(0,2) = 1, k(1,1) = 8, k(1,2) = 27, mean 37/4.
    assert kernel_distance(np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])) == pytest.approx(1 + 27 - 37 / 2)


def test_the_kernel_divides_by_the_number_of_features():
    # Orthogonal rows within a set: k = 1. Across, x.y / 2 + 1 is 3/2 for equal rows and 1 for others.
    rows = np.eye(2)
    assert kernel_distance(rows, rows) == pytest.approx(1 + 1 - 2 * ((1.5**3 + 1) / 2))
    assert kernel_distance(rows, rows.copy()) == kernel_distance(rows, rows)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 30), st.integers(2, 30), st.integers(1, 10))
def test_symmetry_order_and_rotation(seed, n, m, num_dims):
    real, fake = gaussian(n, num_dims, seed=seed), gaussian(m, num_dims, seed=seed + 1, mean=0.3)
    value = kernel_distance(real, fake)
    rotation, _ = np.linalg.qr(gaussian(num_dims, num_dims, seed=seed + 2))
    assert kernel_distance(fake, real) == pytest.approx(value, rel=1e-9, abs=1e-9)
    assert kernel_distance(real[::-1], fake) == pytest.approx(value, rel=1e-9, abs=1e-9)
    assert kernel_distance(real @ rotation, fake @ rotation) == pytest.approx(value, rel=1e-8, abs=1e-8)


def test_unbiased_for_equal_distributions():
    values = [kernel_distance(gaussian(20, 3, seed=2 * i), gaussian(25, 3, seed=2 * i + 1)) for i in range(400)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))
    assert min(values) < 0


def test_parts_of_the_kernel_matrix_give_the_whole(monkeypatch):
    real, fake = gaussian(50, 4, seed=0), gaussian(40, 4, seed=1)
    whole = kernel_distance(real, fake)
    monkeypatch.setattr(kernel, "_ROWS", 7)
    assert kernel_distance(real, fake) == pytest.approx(whole, rel=1e-12)


def test_equals_torch_fidelity_on_the_same_subsets():
    import torch

    metric_kid = import_fidelity("metric_kid")
    real, fake = gaussian(120, 16, seed=5), gaussian(150, 16, seed=6, mean=0.2)
    options = {"kid_subsets": 8, "kid_subset_size": 50, "rng_seed": 2020, "verbose": False}
    expected = metric_kid.kid_features_to_metric(torch.from_numpy(fake), torch.from_numpy(real), **options)
    mean, std = kernel_distance_of_subsets(real, fake, num_subsets=8, subset_size=50, seed=2020)
    assert mean == pytest.approx(expected[metric_kid.KEY_METRIC_KID_MEAN], rel=1e-6)
    assert std == pytest.approx(expected[metric_kid.KEY_METRIC_KID_STD], rel=1e-6)


def test_subsets_repeat_for_a_seed_and_one_whole_subset_is_the_whole():
    real, fake = gaussian(60, 4, seed=0), gaussian(60, 4, seed=1, mean=0.4)
    drawn = [kernel_distance_of_subsets(real, fake, num_subsets=3, subset_size=20, seed=s)[0] for s in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    mean, std = kernel_distance_of_subsets(real, fake, num_subsets=2, subset_size=60)
    assert mean == pytest.approx(kernel_distance(real, fake), rel=1e-9)
    assert std == pytest.approx(0, abs=1e-12)
    with pytest.raises(UsageError, match="subset_size 61"):
        kernel_distance_of_subsets(real, fake, subset_size=61)


def test_influence_is_what_leaving_a_sample_out_does():
    real, fake = gaussian(80, 3, seed=7), gaussian(60, 3, seed=8, mean=0.5)
    value, influence_real, influence_fake = kernel_influence(real, fake)
    without = [kernel_distance(np.delete(real, i, axis=0), fake) for i in range(len(real))]
    left_out = (len(real) - 1) * (value - np.array(without))
    np.testing.assert_allclose(influence_real, left_out - left_out.mean(), atol=0.05 * left_out.std())
    without = [kernel_distance(real, np.delete(fake, i, axis=0)) for i in range(len(fake))]
    left_out = (len(fake) - 1) * (value - np.array(without))
    np.testing.assert_allclose(influence_fake, left_out - left_out.mean(), atol=0.05 * left_out.std())
