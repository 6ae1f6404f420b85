"""How well scores tell synthetic from real. Scores are p_synthetic [N]; is_synthetic [N] is 1 or True for synthetic.

Every function takes weights [N] >= 0, so that a bootstrap resample is a vector of counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from countermark.core.errors import UsageError


def auc(p_synthetic: np.ndarray, is_synthetic: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The probability that a synthetic sample scores above a real one, ties counting half."""
    false_positive, true_positive = _roc(p_synthetic, is_synthetic, weights)
    return float(np.trapezoid(true_positive, false_positive))


def average_precision(p_synthetic: np.ndarray, is_synthetic: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The sum over thresholds of precision times the gain in recall: no interpolation."""
    false_alarms, hits = _counts_above(p_synthetic, is_synthetic, weights)
    recall = hits / hits[-1]
    precision = hits[1:] / np.maximum(hits[1:] + false_alarms[1:], np.finfo(float).tiny)
    return float(np.sum(np.diff(recall) * precision))


def equal_error_rate(p_synthetic: np.ndarray, is_synthetic: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The error where the false-positive rate equals the false-negative rate, on straight lines between thresholds."""
    false_positive, true_positive = _roc(p_synthetic, is_synthetic, weights)
    excess = false_positive - (1 - true_positive)  # from -1 up to 1
    after = int(np.argmax(excess >= 0))
    step = -excess[after - 1] / (excess[after] - excess[after - 1])
    return float(false_positive[after - 1] + step * (false_positive[after] - false_positive[after - 1]))


def accuracy(
    p_synthetic: np.ndarray, is_synthetic: np.ndarray, weights: np.ndarray | None = None, *, threshold: float = 0.5
) -> float:
    """The share of right answers when p_synthetic >= threshold means synthetic."""
    p, y, w = _checked(p_synthetic, is_synthetic, weights)
    return float(w[(p >= threshold) == y].sum() / w.sum())


def false_positive_rate(
    p_synthetic: np.ndarray, is_synthetic: np.ndarray, weights: np.ndarray | None = None, *, threshold: float = 0.5
) -> float:
    """The share of real samples with p_synthetic >= threshold."""
    p, y, w = _checked(p_synthetic, is_synthetic, weights)
    return float(w[(p >= threshold) & ~y].sum() / w[~y].sum())


def true_positive_rate(
    p_synthetic: np.ndarray, is_synthetic: np.ndarray, weights: np.ndarray | None = None, *, threshold: float = 0.5
) -> float:
    """The share of synthetic samples with p_synthetic >= threshold."""
    p, y, w = _checked(p_synthetic, is_synthetic, weights)
    return float(w[(p >= threshold) & y].sum() / w[y].sum())


def expected_calibration_error(
    p_synthetic: np.ndarray, is_synthetic: np.ndarray, weights: np.ndarray | None = None, *, num_bins: int = 15
) -> float:
    """The mean distance between p_synthetic and the share of synthetic samples, over bins of equal width.

    Guo et al. 2017, arXiv:1706.04599, eq. 3, with the bins laid over p_synthetic in [0,1].
    """
    p, y, w = _checked(p_synthetic, is_synthetic, weights)
    if p.min() < 0 or p.max() > 1:
        raise UsageError(f"p_synthetic spans {p.min():.3g} to {p.max():.3g}; calibration needs probabilities in [0,1]")
    bins = np.minimum((p * num_bins).astype(int), num_bins - 1)
    gap = np.bincount(bins, weights=w * (p - y), minlength=num_bins)
    return float(np.abs(gap).sum() / w.sum())


def report(
    p_synthetic: np.ndarray,
    is_synthetic: np.ndarray,
    groups: Sequence | np.ndarray | None = None,
    *,
    threshold: float = 0.5,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict:
    """{metric: {value, ci95}, num_real, num_synthetic, num_groups} for all metrics of this file.

    groups [N] names each sample's independent unit (photograph, speaker, clip); None takes every sample for one. The
    bootstrap draws whole units with replacement, apart for units that hold real, synthetic and both kinds of samples
    (Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 8). The calibration error is biased upward by
    resampling, so its interval is moved back by the mean of its resamples. A metric at the end of its range, such as an
    AUC of 1, has an interval of no width: it says that no error was seen, not that there is none.
    Raises UsageError when one of the two kinds is missing.
    """
    p, y, _ = _checked(p_synthetic, is_synthetic, None)
    _, unit = np.unique(np.arange(len(p)) if groups is None else np.asarray(groups), return_inverse=True)
    if len(unit) != len(p):
        raise UsageError(f"groups has {len(unit)} entries for {len(p)} scores; give one a score")
    metrics: dict[str, Callable[..., float]] = {
        "auc": auc,
        "average_precision": average_precision,
        "equal_error_rate": equal_error_rate,
        "accuracy": lambda *a: accuracy(*a, threshold=threshold),
        "false_positive_rate": lambda *a: false_positive_rate(*a, threshold=threshold),
        "true_positive_rate": lambda *a: true_positive_rate(*a, threshold=threshold),
        "expected_calibration_error": expected_calibration_error,
    }
    counts = _resampled_counts(unit, y, num_resamples, seed)
    record: dict = {}
    for name, metric in metrics.items():
        value = metric(p, y)
        drawn = np.array([metric(p, y, weights) for weights in counts])
        if metric is expected_calibration_error:
            drawn = np.clip(drawn - drawn.mean() + value, 0, 1)
        lo, hi = np.quantile(drawn, (0.025, 0.975))
        record[name] = {"value": value, "ci95": [float(lo), float(hi)]}
    return record | {
        "num_real": int((~y).sum()),
        "num_synthetic": int(y.sum()),
        "num_groups": int(unit.max()) + 1,
    }


def _checked(
    p_synthetic: np.ndarray, is_synthetic: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    p, y = np.asarray(p_synthetic, dtype=np.float64), np.asarray(is_synthetic).astype(bool)
    if p.ndim != 1 or p.shape != y.shape:
        raise UsageError(f"p_synthetic {p.shape} and is_synthetic {y.shape} must be two lists of one length")
    if not np.isfinite(p).all():
        raise UsageError("p_synthetic holds values that are not finite")
    if y.all() or not y.any():
        raise UsageError(f"all {len(y)} samples are {'synthetic' if y.any() else 'real'}; both kinds are needed")
    return p, y, np.ones(len(p)) if weights is None else np.asarray(weights, dtype=np.float64)


def _counts_above(
    p_synthetic: np.ndarray, is_synthetic: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Real and synthetic weight at or above each distinct score, from the highest, with 0 before the first."""
    p, y, w = _checked(p_synthetic, is_synthetic, weights)
    order = np.argsort(-p, kind="stable")
    last_of_score = np.append(np.flatnonzero(np.diff(p[order])), len(p) - 1)
    real, synthetic = np.cumsum(w[order] * ~y[order])[last_of_score], np.cumsum(w[order] * y[order])[last_of_score]
    return np.concatenate(([0.0], real)), np.concatenate(([0.0], synthetic))


def _roc(
    p_synthetic: np.ndarray, is_synthetic: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    false_alarms, hits = _counts_above(p_synthetic, is_synthetic, weights)
    return false_alarms / false_alarms[-1], hits / hits[-1]


def _resampled_counts(unit: np.ndarray, y: np.ndarray, num_resamples: int, seed: int) -> np.ndarray:
    """[num_resamples,N]: how often each sample is drawn when its unit is drawn with its like."""
    rng = np.random.default_rng(seed)
    num_units = int(unit.max()) + 1
    holds_synthetic = np.bincount(unit, weights=y, minlength=num_units) > 0
    holds_real = np.bincount(unit, weights=~y, minlength=num_units) > 0
    kind = holds_synthetic + 2 * holds_real
    counts = np.zeros((num_resamples, num_units))
    for stratum in np.unique(kind):
        members = np.flatnonzero(kind == stratum)
        counts[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=num_resamples)
    return counts[:, unit]
