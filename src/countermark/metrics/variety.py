"""How many different pictures a generator makes, and whether it makes those that it was trained on.

For a look while training goes on: a few dozen pictures in cheap features, so these are coarse figures for alarms, not
metrics to report (metrics/neighbours.py has those). `real` [N,F] are distinct pictures, `fake` [M,F] samples; finite.
"""

from __future__ import annotations

import numpy as np

from countermark.metrics.neighbours import squared_distances

NUM_CELLS = 32
TYPICAL = 500  # points whose distances say what is typical
NEAR_COPY = 0.02  # of the set's typical distance: what a JPEG leaves between two copies of one picture
TWIN = 0.1  # of the distance between neighbours among as many reals
IDENTICAL = 5e-4  # of the same: the generator does not listen to z
COPIED = 0.75  # of the distance to the next nearest picture


def distinct(points: np.ndarray, radius: float) -> np.ndarray:
    """The indices of `points` [N,F] but those within `radius` of one that was kept before them."""
    near = np.tril(squared_distances(points, points) <= radius**2, -1)
    kept = np.ones(len(points), bool)
    for i in np.flatnonzero(near.any(1)):
        kept[i] = not (near[i] & kept).any()
    return np.flatnonzero(kept)


def originals(points: np.ndarray) -> np.ndarray:
    """The indices of `points` [N,F] without copies, exact or nearly (NEAR_COPY), of one before them."""
    some = points[:TYPICAL]
    return distinct(points, NEAR_COPY * float(np.sqrt(np.median(squared_distances(some, some)))))


def different(real: np.ndarray, fake: np.ndarray, radius: float = TWIN) -> np.ndarray:
    """The fakes without twins: those nearer to one before them than `radius` of the median distance of nearest reals.

    As many reals are asked as there are fakes, if there are. N >= 2.
    """
    to_nearest2 = _squared_distances_to_others(real[: len(fake)]).min(1)
    chosen = distinct(fake.astype(np.float64), radius * float(np.median(np.sqrt(to_nearest2))))
    return fake[chosen]


def num_expected(num_real: int, num_fake: int) -> float:
    """How many different pictures `num_fake` draws from `num_real` have on average: a set of 15 makes twins, too."""
    return num_real * (1 - (1 - 1 / num_real) ** num_fake)


def duplicates(real: np.ndarray, fake: np.ndarray, radius: float = TWIN) -> float:
    """How many fakes are twins of others beyond those among as many draws from the reals, as a part; in [0,1]."""
    return max(0.0, 1 - len(different(real, fake, radius)) / num_expected(len(real), len(fake)))


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


def chance_of_copies(real: np.ndarray) -> float:
    """The share of reals that `memorised` would take for copies of others. N >= 3."""
    return float(_are_copies(_squared_distances_to_others(real)).mean())


def memorised(real: np.ndarray, fake: np.ndarray, chance: float) -> float:
    """The share of fakes that are copies of a real beyond `chance`, which is `chance_of_copies` of them; in [0,1].

    A copy is at most COPIED times as far from its nearest real as from the next: distances in many dimensions are much
    alike, so for a new picture, however blurred or simple, the two are (the ratio test of Lowe 2004, section 7.1).
    Twins count once: many samples of one picture are another illness (`duplicates`). N >= 3.
    """
    num_copies = _are_copies(squared_distances(different(real, fake), real)).sum()
    share = min(num_copies / num_expected(len(real), len(fake)), 1.0)
    return max(0.0, float(share - chance) / (1 - chance)) if chance < 1 else 0.0


def _are_copies(distance2: np.ndarray) -> np.ndarray:
    """Which rows of [M,N] have one entry far below all others."""
    nearest2, next2 = np.partition(distance2, 1, axis=1)[:, :2].T
    return nearest2 <= COPIED**2 * next2


def _squared_distances_to_others(points: np.ndarray) -> np.ndarray:
    """[N,N], from each of `points` [N,F] to every other; to itself it is infinite."""
    distance2 = squared_distances(points, points)
    np.fill_diagonal(distance2, np.inf)
    return distance2
