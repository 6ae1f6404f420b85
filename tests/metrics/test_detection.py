import json

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.core.errors import UsageError
from countermark.metrics import detection


def scores(seed: int, n: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores on a coarse grid (ties), labels of both kinds, weights 0..3."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % 3 == 0)
    p = np.round(np.clip(0.3 * y + rng.uniform(size=n) * 0.7, 0, 1), 1)
    return p, y, rng.integers(0, 4, size=n).astype(float)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31))
def test_auc_and_average_precision_equal_sklearns(seed):
    p, y, weights = scores(seed)
    weights[np.argmax(y)] = weights[np.argmin(y)] = 1  # some weight on both kinds
    for w in (None, weights):
        assert detection.auc(p, y, w) == pytest.approx(sklearn.metrics.roc_auc_score(y, p, sample_weight=w))
        assert detection.average_precision(p, y, w) == pytest.approx(
            sklearn.metrics.average_precision_score(y, p, sample_weight=w)
        )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_a_weight_is_a_count(seed):
    p, y, weights = scores(seed)
    weights[np.argmax(y)] = weights[np.argmin(y)] = 1
    times = weights.astype(int)
    for metric in (
        detection.auc,
        detection.average_precision,
        detection.equal_error_rate,
        detection.accuracy,
        detection.false_positive_rate,
        detection.true_positive_rate,
        detection.expected_calibration_error,
    ):
        assert metric(p, y, weights) == pytest.approx(metric(p.repeat(times), y.repeat(times)))


def test_equal_error_rate_by_hand():
    y = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    assert detection.equal_error_rate(np.arange(8), y) == 0.0
    assert detection.equal_error_rate(-np.arange(8), y) == 1.0
    assert detection.equal_error_rate(np.zeros(8), y) == pytest.approx(0.5)
    # One of four real above one of four synthetic: FPR = FNR = 1/4 between them.
    assert detection.equal_error_rate(np.array([0, 1, 2, 5, 4, 6, 7, 8]), y) == pytest.approx(0.25)


def test_rates_at_a_threshold_by_hand():
    p, y = np.array([0.1, 0.6, 0.5, 0.4, 0.9]), np.array([0, 0, 1, 1, 1])
    assert detection.accuracy(p, y) == pytest.approx(3 / 5)
    assert detection.false_positive_rate(p, y) == pytest.approx(1 / 2)
    assert detection.true_positive_rate(p, y) == pytest.approx(2 / 3)  # 0.5 counts
    assert detection.false_positive_rate(p, y, threshold=0.7) == 0.0


def test_calibration_error_by_hand():
    y = np.array([0, 1, 1, 1])
    assert detection.expected_calibration_error(np.full(4, 0.75), y) == pytest.approx(0)
    assert detection.expected_calibration_error(np.full(4, 0.25), y) == pytest.approx(0.5)
    # Bins apart: (0 off by .1) and (three 1s off by 0).
    assert detection.expected_calibration_error(np.array([0.1, 1, 1, 1]), y) == pytest.approx(0.1 / 4)
    with pytest.raises(UsageError, match="calibration needs probabilities"):
        detection.expected_calibration_error(np.array([0.1, 2, 1, 1]), y)


def test_the_report_holds_and_repeats():
    p, y, _ = scores(0, n=300)
    record = detection.report(p, y, num_resamples=200)
    assert (record["num_real"], record["num_synthetic"], record["num_groups"]) == (200, 100, 300)
    for name, metric in list(record.items())[:7]:
        assert metric["ci95"][0] <= metric["value"] <= metric["ci95"][1], name
    json.dumps(record, allow_nan=False)
    assert detection.report(p, y, num_resamples=200) == record
    assert detection.report(p, y, num_resamples=200, seed=1) != record


def test_intervals_are_over_units_and_not_over_their_parts():
    p, y, _ = scores(1, n=90)
    units = np.arange(90)
    once = detection.report(p, y, num_resamples=400)["auc"]["ci95"]
    tenfold = detection.report(p.repeat(10), y.repeat(10), units.repeat(10), num_resamples=400)["auc"]["ci95"]
    careless = detection.report(p.repeat(10), y.repeat(10), num_resamples=400)["auc"]["ci95"]
    assert tenfold == pytest.approx(once, abs=0.02)
    assert careless[1] - careless[0] < 0.5 * (once[1] - once[0])


def test_a_unit_may_hold_both_kinds():
    p, y, _ = scores(2, n=40)
    record = detection.report(p, y, [f"photo{i % 8}" for i in range(40)], num_resamples=50)
    assert record["num_groups"] == 8


def test_coverage_of_the_interval():
    """The true AUC of two unit Gaussians one apart is Phi(1/sqrt 2) = 0.7602."""
    held = []
    for seed in range(50):
        rng = np.random.default_rng(seed)
        y = np.arange(160) % 2
        record = detection.report(1 / (1 + np.exp(-rng.normal(size=160) - y)), y, num_resamples=100, seed=seed)
        lo, hi = record["auc"]["ci95"]
        held.append(lo <= 0.7602 <= hi)
    assert np.mean(held) >= 0.86


def test_one_kind_alone_is_refused():
    with pytest.raises(UsageError, match="all 3 samples are real"):
        detection.auc(np.zeros(3), np.zeros(3))
    with pytest.raises(UsageError, match="groups has 2 entries for 3"):
        detection.report(np.zeros(3), np.array([0, 1, 1]), ["a", "b"])
