import json
import time

import numpy as np
import pytest

from countermark.core.errors import UsageError
from countermark.metrics.distribution import GROUPS, compare
from countermark.metrics.intervals import half_sample_intervals, linear_interval, proportion_interval
from tests.metrics.made import gaussian

METRICS = ("kid", "fd", "precision", "recall", "density", "coverage")


def test_the_record():
    real, fake = gaussian(60, 4, seed=0), gaussian(50, 4, seed=1, mean=0.3)
    record = compare(real, fake, ["kid", "fd", "pr", "dc"], "own", "none")
    assert tuple(record) == (*METRICS, "num_real", "num_fake")
    assert (record["num_real"], record["num_fake"]) == (60, 50)
    for name in METRICS:
        lo, hi = record[name]["ci95"]
        assert lo <= record[name]["value"] <= hi
        assert lo < hi
        assert record[name]["features"] == "own"
        assert record[name]["resize"] == "none"
    json.dumps(record, allow_nan=False)
    assert compare(real, fake, ["kid", "fd", "pr", "dc"], "own", "none") == record


def test_an_unknown_metric_and_tiny_sets_are_named():
    x = gaussian(20, 2, seed=0)
    with pytest.raises(UsageError, match="unknown metric 'fid'; known: dc, fd, kid, pr"):
        compare(x, x, ["kid", "fid"], "own", "none")
    with pytest.raises(UsageError, match="real has 11 samples; this metric needs at least 12"):
        compare(x[:11], x, ["kid"], "own", "none")


def test_intervals_hold_the_expected_value_about_as_often_as_they_say():
    """95% asked. 50 pairs of sets: the share found is known to about 3 points, the spread to about 10%."""
    records = [
        compare(gaussian(100, 6, seed=2 * i), gaussian(100, 6, seed=2 * i + 1, mean=0.4, std=0.8), GROUPS, "", "")
        for i in range(50)
    ]
    for name in METRICS:
        values = np.array([record[name]["value"] for record in records])
        ends = np.array([record[name]["ci95"] for record in records])
        held = ((ends[:, 0] <= values.mean()) & (values.mean() <= ends[:, 1])).mean()
        width = (ends[:, 1] - ends[:, 0]).mean() / (2 * 1.96 * values.std())
        assert held >= 0.86, name
        assert 0.75 < width < 1.6, name


def test_a_linear_interval_is_that_of_the_mean():
    values = gaussian(400, 1, seed=0, std=2.0)[:, 0]
    lo, hi = linear_interval(5.0, values - values.mean(), np.zeros(10), num_resamples=4000)
    assert (lo + hi) / 2 == pytest.approx(5.0, abs=0.02)
    assert (hi - lo) / (2 * 1.96) == pytest.approx(values.std() / 20, rel=0.06)


@pytest.mark.parametrize("num_samples", [300, 2000])  # halves, and parts smaller than half
def test_half_samples_give_the_spread_of_a_mean(num_samples):
    real, fake = gaussian(num_samples, 1, seed=0), gaussian(num_samples, 1, seed=1, std=2.0)
    [(lo, hi)] = half_sample_intervals(lambda x, y: (x.mean() - y.mean(),), real, fake, num_resamples=1500)
    assert (lo + hi) / 2 == pytest.approx(real.mean() - fake.mean())
    assert (hi - lo) / (2 * 1.96) == pytest.approx(np.sqrt((real.var() + fake.var()) / num_samples), rel=0.08)


def test_proportions_stay_inside_and_never_claim_certainty():
    assert proportion_interval(0.98, (0.95, 1.01), 100) == (0.95, 1.0)
    assert proportion_interval(1.0, (1.0, 1.0), 100) == (0.97, 1.0)
    assert proportion_interval(0.0, (0.0, 0.0), 100) == (0.0, 0.03)


def test_all_metrics_of_a_thousand_samples_take_seconds():
    real, fake = gaussian(1000, 128, seed=0), gaussian(1000, 128, seed=1, mean=0.05)
    started = time.process_time()
    compare(real, fake, GROUPS, "", "")
    assert time.process_time() - started < 15  # 3 s on a quiet core
