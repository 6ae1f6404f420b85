"""95% intervals for metrics of two samples.

Resampling with replacement and recomputing does not work here: it adds a second sampling bias to the Frechet distance,
about as large as the first, and the repeated points that it brings are each other's nearest neighbours, which empties
every k-NN ball. Two ways that do:

- `linear_interval`, for metrics whose first-order expansion is known (Frechet, kernel): a bootstrap over each sample's
  influence value (the infinitesimal jackknife: Efron, The Jackknife, the Bootstrap and Other Resampling Plans, 1982,
  chapter 6). Costs nothing beside the metric.
- `half_sample_intervals`, for any metric: recompute it on random halves drawn without replacement. The spread of halves
  equals that of whole samples to first order, for metrics that are not smooth too (the delete-half jackknife: Shao and
  Wu, Annals of Statistics 17, 1989).

Both are laid around the value, so the interval is for the metric's expected value at these numbers of samples: the
bias that a Frechet distance or a precision has at finite N stays in, as it does in the value. Where the two
distributions are equal, the first order vanishes and the intervals are too wide, by up to sqrt(2).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# Halves are no larger than this; the spread is then scaled by the square root of the sizes.
_MAX_PART = 500
_NORMAL_95 = 1.959964
# Draws held in memory at once.
_DRAWS_AT_ONCE = 1_000_000


def linear_interval(
    value: float, influence_real: np.ndarray, influence_fake: np.ndarray, *, num_resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The bootstrap's interval of a metric that deviates by mean(influence_real) + mean(influence_fake).

    influence_real [N], influence_fake [M], each of mean zero. The same for the same seed.
    """
    rng = np.random.default_rng(seed)
    deviations = _means(influence_real, num_resamples, rng) + _means(influence_fake, num_resamples, rng)
    lo, hi = value + np.quantile(deviations, (0.025, 0.975))
    return float(lo), float(hi)


def half_sample_intervals(
    metrics: Callable[[np.ndarray, np.ndarray], tuple[float, ...]],
    real: np.ndarray,
    fake: np.ndarray,
    *,
    num_resamples: int = 100,
    seed: int = 0,
) -> list[tuple[float, float]]:
    """An interval for each value of `metrics(real, fake)`; real [N,F], fake [M,F]. The same for the same seed."""
    rng = np.random.default_rng(seed)
    # One fraction for both sets, so that one factor scales both sets' part in the spread.
    fraction = min(0.5, _MAX_PART / max(len(real), len(fake)))
    values = np.array(
        [metrics(_part(real, fraction, rng), _part(fake, fraction, rng)) for _ in range(num_resamples)], dtype=float
    )
    half_width = _NORMAL_95 * values.std(axis=0, ddof=1) * np.sqrt(fraction / (1 - fraction))
    whole = np.asarray(metrics(real, fake))
    return [(float(lo), float(hi)) for lo, hi in zip(whole - half_width, whole + half_width, strict=True)]


def proportion_interval(value: float, ends: tuple[float, float], num_judged: int) -> tuple[float, float]:
    """`ends` inside [0,1]; a value of exactly 0 or 1 reaches 3/n inward (the rule of three; Hanley 1983, JAMA 249)."""
    lo, hi = ends
    if value in (0.0, 1.0):
        lo, hi = min(lo, value - 3 / num_judged), max(hi, value + 3 / num_judged)
    return max(lo, 0.0), min(hi, 1.0)


def _part(samples: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    return samples[rng.permutation(len(samples))[: round(len(samples) * fraction)]]


def _means(values: np.ndarray, num_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """The means [num_resamples] of resamples of `values` [N], drawn with replacement."""
    n = len(values)
    rows = max(1, _DRAWS_AT_ONCE // n)
    sizes = [min(rows, num_resamples - start) for start in range(0, num_resamples, rows)]
    return np.concatenate([values[rng.integers(n, size=(size, n))].mean(axis=1) for size in sizes])
