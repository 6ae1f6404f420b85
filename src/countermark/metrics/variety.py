"""How many different pictures a generator makes, and whether it makes those that it was trained on.

For a look while training goes on: a few dozen pictures in cheap features, so these are coarse figures for alarms, not
metrics to report (metrics/neighbours.py has those). `real` [N,F] are distinct pictures, `fake` [M,F] samples; finite.
"""

from __future__ import annotations

import numpy as np

from countermark.metrics.neighbours import squared_distances

NUM_CELLS = 32
NEAR_COPY = 0.02  # of the set's typical distance: what a JPEG leaves between two copies of one picture
TWIN = 0.1  # of the distance between neighbours among as many reals
COPIED = 0.6  # of the distance to the next nearest picture


def distinct(points: np.ndarray, radius: float) -> np.ndarray:
    """The indices of `points` [N,F] but those within `radius` of one that was kept before them."""
    near = np.tril(squared_distances(points, points) <= radius**2, -1)
    kept = np.ones(len(points), bool)
    for i in np.flatnonzero(near.any(1)):
        kept[i] = not (near[i] & kept).any()
    return np.flatnonzero(kept)


def originals(points: np.ndarray) -> np.ndarray:
    """The indices of `points` [N,F] without copies, exact or nearly (NEAR_COPY), of one before them."""
    return distinct(points, NEAR_COPY * float(np.sqrt(np.median(squared_distances(points, points)))))


def duplicates(real: np.ndarray, fake: np.ndarray) -> float:
    """The share of fakes that are twins of others, in [0,1]: nearer than TWIN of the median distance of nearest reals.

    Zero is what as many draws from the real pictures have: a set of 15 makes twins of its own. N >= 2.
    """
    to_nearest2 = squared_distances(real[: len(fake)], real[: len(fake)])
    np.fill_diagonal(to_nearest2, np.inf)
    num_different = len(distinct(fake, TWIN * float(np.median(np.sqrt(to_nearest2.min(1))))))
    expected = len(real) * (1 - (1 - 1 / len(real)) ** len(fake))
    return max(0.0, 1 - num_different / expected)


def coverage(real: np.ndarray, fake: np.ndarray) -> float:
    """The number of the reals' cells in which fakes lie, over that of as many reals: about 1 when fakes vary as much.

    NUM_CELLS reals (half of a small set) are the centres of cells, and a picture is in the cell of the nearest: the
    bins of arXiv:1805.12462, section 3, whose centres are means. N >= 2.
    """
    num_cells = min(NUM_CELLS, len(real) // 2)
    centres, others = real[:num_cells], real[num_cells:]
    return _num_cells(centres, fake) / _num_cells(centres, others[: len(fake)])


def _num_cells(centres: np.ndarray, points: np.ndarray) -> int:
    return len(np.unique(squared_distances(points, centres).argmin(1)))


def memorised(real: np.ndarray, fake: np.ndarray) -> float:
    """The share of fakes that are copies of a real, in [0,1], beyond the share that reals themselves have among theirs.

    A copy is at most COPIED times as far from its nearest real as from the next: distances in many dimensions are much
    alike, so for a new picture, however blurred or simple, the two are (the ratio test of Lowe 2004, section 7.1).
    N >= 3.
    """
    to_others2 = squared_distances(real, real)
    np.fill_diagonal(to_others2, np.inf)
    chance = _share_near_one(to_others2)
    return max(0.0, (_share_near_one(squared_distances(fake, real)) - chance) / (1 - chance)) if chance < 1 else 0.0


def _share_near_one(distance2: np.ndarray) -> float:
    """Of the rows of [M,N]: how many have one entry far below all others."""
    nearest2, next2 = np.partition(distance2, 1, axis=1)[:, :2].T
    return float((nearest2 <= COPIED**2 * next2).mean())
