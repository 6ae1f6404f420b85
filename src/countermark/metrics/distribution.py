"""How far a generator's pictures are from real ones: every metric of two sets of features, with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from countermark.core.errors import UsageError
from countermark.core.text import named
from countermark.metrics.frechet import frechet_distance, frechet_influence
from countermark.metrics.inputs import checked
from countermark.metrics.intervals import half_sample_intervals, linear_interval, proportion_interval
from countermark.metrics.kernel import kernel_distance, kernel_distance_of_subsets, kernel_influence
from countermark.metrics.neighbours import density_coverage, precision_recall

__all__ = [
    "GROUPS",
    "compare",
    "density_coverage",
    "frechet_distance",
    "kernel_distance",
    "kernel_distance_of_subsets",
    "precision_recall",
]

Interval = tuple[float, float]


def _kid(real: np.ndarray, fake: np.ndarray, seed: int) -> dict[str, tuple[float, Interval]]:
    value, influence_real, influence_fake = kernel_influence(real, fake)
    return {"kid": (value, linear_interval(value, influence_real, influence_fake, seed=seed))}


def _fd(real: np.ndarray, fake: np.ndarray, seed: int) -> dict[str, tuple[float, Interval]]:
    value, influence_real, influence_fake = frechet_influence(real, fake)
    lo, hi = linear_interval(value, influence_real, influence_fake, seed=seed)
    return {"fd": (value, (max(lo, 0.0), hi))}


def _pr(real: np.ndarray, fake: np.ndarray, seed: int) -> dict[str, tuple[float, Interval]]:
    precision, recall = precision_recall(real, fake)
    of_precision, of_recall = half_sample_intervals(precision_recall, real, fake, seed=seed)
    return {
        "precision": (precision, proportion_interval(precision, of_precision, len(fake))),
        "recall": (recall, proportion_interval(recall, of_recall, len(real))),
    }


def _dc(real: np.ndarray, fake: np.ndarray, seed: int) -> dict[str, tuple[float, Interval]]:
    density, coverage = density_coverage(real, fake)
    (lo, hi), of_coverage = half_sample_intervals(density_coverage, real, fake, seed=seed)
    return {
        "density": (density, (max(lo, 0.0), hi)),
        "coverage": (coverage, proportion_interval(coverage, of_coverage, len(real))),
    }


# What a user asks for by name.
GROUPS = {"kid": _kid, "fd": _fd, "pr": _pr, "dc": _dc}
# The k-NN metrics need k + 1 samples in each half.
_FEWEST_SAMPLES = 12


def compare(
    real_features: np.ndarray,
    fake_features: np.ndarray,
    metrics: Sequence[str],
    features_name: str,
    resize: str,
    *,
    seed: int = 0,
) -> dict:
    """{metric: {value, ci95, features, resize}, num_real, num_fake} of real [N,F] and fake [M,F] features.

    metrics: groups of GROUPS: kid; fd; pr gives precision and recall; dc gives density and coverage. ci95 is for the
    metric's expected value at these numbers of samples (see `intervals`). Raises UsageError for an unknown group, for
    fewer than 12 samples in a set, for unequal F and for features that are not finite.
    """
    unknown = [group for group in metrics if group not in GROUPS]
    if unknown:
        raise UsageError(f"unknown metric {unknown[0]!r}; known: {named(GROUPS)}")
    real, fake = checked(real_features, fake_features, at_least=_FEWEST_SAMPLES)
    record: dict = {}
    for group in metrics:
        for name, (value, ci95) in GROUPS[group](real, fake, seed).items():
            record[name] = {"value": value, "ci95": list(ci95), "features": features_name, "resize": resize}
    return record | {"num_real": len(real), "num_fake": len(fake)}
