"""Fidelity and diversity from nearest-neighbour balls: a ball around each sample reaches its k-th nearest neighbour.

Precision and recall: Kynkaanniemi et al. 2019, arXiv:1904.06991, eqs. 1-2 (k = 3).
Density and coverage: Naeem et al. 2020, arXiv:2002.09797, eqs. 3-4 (k = 5).
"""

from __future__ import annotations

import numpy as np

from countermark.metrics.inputs import checked

# Points compared with all others at once.
_ROWS = 512
# Squared distances below this part of the squared norms are rounding: the points are the same.
_SAME_POINT = 1e-13


def precision_recall(real: np.ndarray, fake: np.ndarray, *, k: int = 3) -> tuple[float, float]:
    """The share of `fake` [M,F] inside a ball of `real` [N,F], and of `real` inside a ball of `fake`; both in [0,1].

    Raises UsageError for k samples or fewer, for unequal F and for values that are not finite.
    """
    real, fake = checked(real, fake, at_least=k + 1)
    num_real_balls, _ = _count_inside(real, _radii2(real, k), fake)
    num_fake_balls, _ = _count_inside(fake, _radii2(fake, k), real)
    return float((num_real_balls > 0).mean()), float((num_fake_balls > 0).mean())


def density_coverage(real: np.ndarray, fake: np.ndarray, *, k: int = 5) -> tuple[float, float]:
    """How many real balls a fake lies in, over k (>= 0, can pass 1), and the share of real balls with a fake in them.

    Raises UsageError as `precision_recall` does.
    """
    real, fake = checked(real, fake, at_least=k + 1)
    num_balls, num_fakes = _count_inside(real, _radii2(real, k), fake)
    return float(num_balls.mean() / k), float((num_fakes > 0).mean())


def _radii2(centres: np.ndarray, k: int) -> np.ndarray:
    """[N]: the squared distance of each of `centres` [N,F] to its k-th nearest other one."""
    radii2 = np.empty(len(centres))
    for start in range(0, len(centres), _ROWS):
        distance2 = squared_distances(centres[start : start + _ROWS], centres)
        distance2[np.arange(len(distance2)), start + np.arange(len(distance2))] = np.inf
        radii2[start : start + _ROWS] = np.partition(distance2, k - 1, axis=1)[:, k - 1]
    return radii2


def _count_inside(centres: np.ndarray, radii2: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[M]: in how many balls each of `points` [M,F] lies; [N]: how many points lie in each ball."""
    num_balls, num_points = np.empty(len(points), dtype=np.int64), np.zeros(len(centres), dtype=np.int64)
    for start in range(0, len(points), _ROWS):
        inside = squared_distances(points[start : start + _ROWS], centres) <= radii2
        num_balls[start : start + _ROWS] = inside.sum(axis=1)
        num_points += inside.sum(axis=0)
    return num_balls, num_points


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of all x [N,F] to all y [M,F]: [N,M], exactly zero for equal points."""
    norms = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1)
    distance2 = norms - 2 * x @ y.T
    distance2[distance2 < _SAME_POINT * norms] = 0.0
    return distance2
