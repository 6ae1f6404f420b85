import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from countermark.core.errors import CountermarkError
from countermark.forensics.calibration import (
    FILE_NAME,
    Calibration,
    Domain,
    conformal_quantile,
    fit_domain,
    fit_platt,
    lower_threshold,
    num_exceedances,
    sigmoid,
    upper_threshold,
)


def test_sigmoid_is_the_logistic_function_and_never_overflows() -> None:
    np.testing.assert_allclose(sigmoid(np.array([0.0, math.log(3), -math.log(3)])), [0.5, 0.75, 0.25])
    np.testing.assert_array_equal(sigmoid(np.array([-1e6, 1e6])), [0, 1])


def test_platt_finds_the_logistic_of_two_gaussians() -> None:
    """Equal classes N(-m, s) and N(m, s) have the log-odds 2 m x / s^2 exactly."""
    rng = np.random.default_rng(0)
    m, s, num = 0.7, 1.3, 40_000
    slope, offset = fit_platt(rng.normal(-m, s, num), rng.normal(m, s, num))
    assert slope == pytest.approx(2 * m / s**2, rel=0.03)
    assert offset == pytest.approx(0, abs=0.03)


def test_platt_weighs_the_classes_alike_and_follows_a_change_of_units() -> None:
    rng = np.random.default_rng(1)
    real, fake = rng.normal(-1, 1, 300), rng.normal(1, 1, 9000)
    slope, offset = fit_platt(real, fake)
    assert abs(-offset / slope) < 0.25
    other_slope, other_offset = fit_platt(real * 50 + 7, fake * 50 + 7)
    np.testing.assert_allclose(
        sigmoid(other_slope * (real * 50 + 7) + other_offset), sigmoid(slope * real + offset), atol=1e-3
    )


def test_platt_stays_finite_on_separated_scores_and_flat_on_reversed_ones() -> None:
    slope, offset = fit_platt(np.array([-2.0, -1.0]), np.array([1.0, 2.0]))
    assert np.isfinite([slope, offset]).all()
    assert 0.5 < sigmoid(np.array(slope * 2 + offset)) < 1
    slope, offset = fit_platt(np.array([1.0, 2.0, 3.0]), np.array([-1.0, -2.0, -3.0]))
    assert (slope, offset) == (0, pytest.approx(0, abs=1e-4))
    assert fit_platt(np.zeros(3), np.zeros(3))[1] == pytest.approx(0, abs=1e-4)


def test_number_of_exceedances_by_the_beta_distribution_and_by_hand() -> None:
    for num in (45, 100, 500):
        k = num_exceedances(num, 0.05, 0.9)
        assert beta.cdf(0.05, k, num + 1 - k) >= 0.9
        assert beta.cdf(0.05, k + 1, num - k) < 0.9
    # One score is enough when 1 - (1 - rate)^n >= confidence: n = 45 for 5% and 90%.
    assert 1 - 0.95**45 > 0.9 > 1 - 0.95**44
    assert (num_exceedances(45, 0.05, 0.9), num_exceedances(44, 0.05, 0.9)) == (1, 0)


@given(st.integers(1, 400), st.floats(0.01, 0.5), st.floats(0.5, 0.99))
def test_more_scores_a_higher_rate_or_less_confidence_never_allow_fewer(
    num: int, rate: float, confidence: float
) -> None:
    k = num_exceedances(num, rate, confidence)
    assert k <= num_exceedances(num + 1, rate, confidence)
    assert k <= num_exceedances(num, min(rate * 1.5, 0.99), confidence)
    assert k <= num_exceedances(num, rate, confidence / 1.2)


def test_thresholds_by_hand() -> None:
    scores = np.arange(100.0)
    k = num_exceedances(100, 0.05, 0.9)
    assert k == 2
    assert upper_threshold(scores, 0.05, 0.9) == 98.0
    assert lower_threshold(scores, 0.05, 0.9) == 1.0
    assert upper_threshold(scores[:40], 0.05, 0.9) == math.inf
    assert lower_threshold(scores[:40], 0.05, 0.9) == -math.inf


@given(st.lists(st.floats(-1e6, 1e6), min_size=45, max_size=80), st.permutations(range(45)))
def test_a_threshold_ignores_the_order_and_is_passed_by_fewer_than_k(scores: list[float], order: list[int]) -> None:
    array = np.array(scores)
    threshold = upper_threshold(array, 0.05, 0.9)
    assert threshold == upper_threshold(array[::-1], 0.05, 0.9)
    assert (array > threshold).sum() < num_exceedances(len(array), 0.05, 0.9)
    assert lower_threshold(-array, 0.05, 0.9) == -threshold


@pytest.mark.parametrize(("num", "rate", "confidence"), [(100, 0.05, 0.9), (400, 0.05, 0.9), (300, 0.1, 0.8)])
def test_the_promise_holds_by_simulation(num: int, rate: float, confidence: float) -> None:
    """With uniform scores the share above a threshold t is 1 - t: it is over `rate` in few calibrations."""
    rng = np.random.default_rng(0)
    shares = np.array([1 - upper_threshold(rng.random(num), rate, confidence) for _ in range(3000)])
    kept = np.mean(shares <= rate)
    assert kept >= confidence - 3 * math.sqrt(confidence * (1 - confidence) / 3000)
    k = num_exceedances(num, rate, confidence)
    assert shares.mean() == pytest.approx(k / (num + 1), rel=0.05)


def test_conformal_quantile_by_hand_and_by_simulation() -> None:
    assert conformal_quantile(np.arange(1.0, 100.0), 0.99) == 99.0
    assert conformal_quantile(np.arange(1.0, 99.0), 0.99) == math.inf
    assert conformal_quantile(np.arange(1.0, 200.0), 0.5) == 100.0
    rng = np.random.default_rng(0)
    drawn = rng.random((4000, 200))
    hit = np.mean([row[-1] <= conformal_quantile(row[:-1], 0.9) for row in drawn])
    assert hit == pytest.approx(0.9, abs=0.02)


def gaussians(num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal([0, 0, 0], [1, 2, 3], (num, 3)), rng.normal([9, 0, 0], [1, 2, 3], (num, 3))


def test_domain_distance_is_mahalanobis_to_the_nearer_mean() -> None:
    domain = fit_domain(gaussians(20_000, 0), [gaussians(2000, 1)])
    rows = np.array([[0, 0, 0], [2, 0, 0], [9, 4, 0], [4.5, 0, 3], [0, 0, 30]])
    np.testing.assert_allclose(domain.distance(rows), [0, 4, 4, 21.25, 100], rtol=0.06, atol=0.02)
    from scipy.stats import chi2

    assert domain.threshold == pytest.approx(chi2.ppf(0.99, 3), rel=0.15)


def test_domain_keeps_its_share_of_new_pictures_of_either_class_and_drops_others() -> None:
    domain = fit_domain(gaussians(500, 0), [gaussians(500, 1), gaussians(500, 2)])
    for side in gaussians(5000, 3):
        assert domain.contains(side).mean() > 0.975
    assert not domain.contains(np.random.default_rng(4).normal([-20, 0, 0], 1, (100, 3))).any()


def test_domain_of_features_that_never_vary() -> None:
    real, fake = (np.pad(side, ((0, 0), (0, 2))) for side in gaussians(300, 0))
    domain = fit_domain((real, fake), [(real, fake)])
    assert domain.contains(real).mean() > 0.95
    assert not domain.contains(np.array([[0, 0, 0, 5, 0.0]])).any()


def calibration() -> Calibration:
    return Calibration(
        size=32,
        channels=1,
        network_sha256="ab" * 32,
        false_positive_rate=0.05,
        miss_rate=0.04,
        confidence=0.9,
        num_real=500,
        num_fake=400,
        slope=2.0,
        offset=-1.0,
        low=-1.5,
        high=0.25,
        domain=Domain(np.arange(6.0).reshape(2, 3), np.eye(3), 11.5),
    )


def test_verdicts_and_probabilities() -> None:
    assert calibration().verdicts(np.array([-2, -1.5, 0, 0.25, 0.3])) == [
        "authentic", "unknown", "unknown", "unknown", "synthetic",
    ]  # fmt: skip
    assert calibration().p_synthetic(np.array([0.5])) == pytest.approx(0.5)


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=20))
def test_probability_grows_with_the_score(scores: list[float]) -> None:
    p = calibration().p_synthetic(np.sort(scores))
    assert ((p >= 0) & (p <= 1)).all()
    assert (np.diff(p) >= 0).all()


@pytest.mark.parametrize("changes", [{}, {"low": -math.inf, "high": math.inf}])
def test_a_calibration_comes_back_from_its_file_as_it_was(tmp_path: Path, changes: dict) -> None:
    written = replace(calibration(), **changes)
    written.save(tmp_path)
    back = Calibration.load(tmp_path)
    for name in ("means", "precision"):
        np.testing.assert_array_equal(getattr(back.domain, name), getattr(written.domain, name))
    assert back.domain.threshold == written.domain.threshold
    assert replace(back, domain=written.domain) == written
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize(
    "changes",
    [
        {"size": "32"},
        {"channels": True},
        {"slope": math.nan},
        {"slope": -1.0},
        {"low": 2.0},
        {"low": math.nan},
        {"domain": Domain(np.zeros((3, 3)), np.eye(3), 1.0)},
        {"domain": Domain(np.zeros((2, 3)), np.eye(2), 1.0)},
        {"domain": Domain(np.zeros((2, 3)), np.full((3, 3), np.nan), 1.0)},
    ],
)
def test_a_calibration_that_makes_no_sense_is_refused(tmp_path: Path, changes: dict) -> None:
    replace(calibration(), **changes).save(tmp_path)
    with pytest.raises(CountermarkError, match="calibrate again"):
        Calibration.load(tmp_path)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_file_is_refused_or_harmless_but_never_breaks(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("calibration")
    calibration().save(folder)
    content = bytearray((folder / FILE_NAME).read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (folder / FILE_NAME).write_bytes(content)
    try:
        Calibration.load(folder)
    except CountermarkError as error:
        assert str(folder) in str(error)  # noqa: PT017


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CountermarkError, match="no such file"):
        Calibration.load(tmp_path)
    from safetensors.numpy import save

    (tmp_path / FILE_NAME).write_bytes(save({"platt": np.zeros(2)}))
    with pytest.raises(CountermarkError, match="another format"):
        Calibration.load(tmp_path)
