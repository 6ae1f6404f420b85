import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.core.errors import UsageError
from countermark.metrics.frechet import frechet_distance, frechet_influence
from tests.metrics.fidelity import import_fidelity
from tests.metrics.made import gaussian, with_moments

seeds = st.integers(0, 2**31)


def test_two_gaussians_whose_covariances_commute():
    variances_real, variances_fake = np.array([1.0, 4.0, 9.0]), np.array([4.0, 4.0, 0.25])
    mean = np.array([1.0, -2.0, 0.5])
    real = with_moments(np.zeros(3), np.diag(variances_real), num_samples=40, seed=0)
    fake = with_moments(mean, np.diag(variances_fake), num_samples=70, seed=1)
    expected = mean @ mean + ((np.sqrt(variances_real) - np.sqrt(variances_fake)) ** 2).sum()
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-10)


def test_two_gaussians_whose_covariances_do_not_commute():
    # For two dimensions tr(M^1/2) = sqrt(tr M + 2 sqrt(det M)).
    s1, s2 = np.array([[2.0, 0.8], [0.8, 1.0]]), np.array([[1.0, -0.6], [-0.6, 3.0]])
    real = with_moments(np.zeros(2), s1, num_samples=30, seed=0)
    fake = with_moments(np.zeros(2), s2, num_samples=50, seed=1)
    product = s1 @ s2
    trace_of_root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    assert frechet_distance(real, fake) == pytest.approx(np.trace(s1) + np.trace(s2) - 2 * trace_of_root, rel=1e-10)


@pytest.mark.parametrize(("num_samples", "num_dims"), [(5, 50), (50, 5), (2, 3)])
def test_moved_and_stretched_sets_of_any_rank(num_samples, num_dims):
    real = gaussian(num_samples, num_dims, seed=3)
    shift = gaussian(1, num_dims, seed=4)[0]
    assert frechet_distance(real, real + shift) == pytest.approx(shift @ shift, rel=1e-9)
    centred = real - real.mean(axis=0)
    variance = (centred**2).sum() / (num_samples - 1)
    assert frechet_distance(centred, 3 * centred) == pytest.approx(4 * variance, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(2, 30), st.integers(2, 30), st.integers(1, 20))
def test_identity_symmetry_and_rigid_motions(seed, n, m, num_dims):
    real, fake = gaussian(n, num_dims, seed=seed), gaussian(m, num_dims, seed=seed + 1, mean=0.5, std=2.0)
    value = frechet_distance(real, fake)
    assert value >= 0
    assert frechet_distance(real, real) <= 1e-10 * num_dims
    assert frechet_distance(fake, real) == pytest.approx(value, rel=1e-9)
    rotation, _ = np.linalg.qr(gaussian(num_dims, num_dims, seed=seed + 2))
    assert frechet_distance(real @ rotation + 7, fake @ rotation + 7) == pytest.approx(value, rel=1e-8)


@pytest.mark.parametrize(("n", "m", "num_dims"), [(400, 300, 16), (200, 200, 64), (60, 50, 100)])
def test_equals_torch_fidelity(n, m, num_dims):
    import torch

    metric_fid = import_fidelity("metric_fid")
    real, fake = gaussian(n, num_dims, seed=5), gaussian(m, num_dims, seed=6, mean=0.2, std=1.3)
    statistics = [metric_fid.fid_features_to_statistics(torch.from_numpy(x)) for x in (fake, real)]
    expected = metric_fid.fid_statistics_to_metric(*statistics, False)[metric_fid.KEY_METRIC_FID]
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-6)


def test_influence_is_what_leaving_a_sample_out_does():
    real, fake = gaussian(150, 4, seed=7), gaussian(120, 4, seed=8, mean=0.5, std=1.5)
    value, influence_real, influence_fake = frechet_influence(real, fake)
    without_real = [frechet_distance(np.delete(real, i, axis=0), fake) for i in range(len(real))]
    without_fake = [frechet_distance(real, np.delete(fake, i, axis=0)) for i in range(len(fake))]
    for influence, without in ((influence_real, without_real), (influence_fake, without_fake)):
        left_out = (len(without) - 1) * (value - np.array(without))
        assert influence.mean() == pytest.approx(0, abs=1e-10)
        assert np.corrcoef(influence, left_out)[0, 1] > 0.995
        assert influence.std() == pytest.approx(left_out.std(), rel=0.05)


@pytest.mark.parametrize(
    ("real", "fake", "words"),
    [
        (np.zeros((1, 3)), np.zeros((9, 3)), "real has 1 samples"),
        (np.zeros((9, 3)), np.zeros((9, 4)), "real has 3 features and fake 4"),
        (np.zeros((9, 3)), np.full((9, 3), np.nan), "fake features hold"),
        (np.zeros(9), np.zeros((9, 1)), "real features have shape"),
    ],
)
def test_what_does_not_fit_is_named(real, fake, words):
    with pytest.raises(UsageError, match=words):
        frechet_distance(real, fake)
