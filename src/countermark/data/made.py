"""Sets that are made by rule, so that the truth about them is known: what a GAN misses of them can be counted.

Points in the plane are "pictures" of one pixel with two channels, float32 in about [-1,1].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from countermark.core.seeds import derive
from countermark.data.sources import Batch

_BLOCK = 4096  # rows that are drawn at once


def _rows(draw: Callable[[int], np.ndarray], position: int, num: int, step: int) -> np.ndarray:
    """Rows position, position + step, ... of an endless stream, of which draw(i) gives block number i."""
    blocks = range(position // _BLOCK, (position + (num - 1) * step) // _BLOCK + 1)
    start = position - blocks[0] * _BLOCK
    return np.concatenate([draw(block) for block in blocks])[start : start + num * step : step]


@dataclass(frozen=True)
class Mixture:
    """Equal Gaussians of standard deviation `deviation` around `centres` [M,2], endlessly, by seed and position."""

    centres: np.ndarray
    deviation: float
    seed: int = 0
    num_classes: int = 0

    def at(self, position: int, num: int, step: int = 1) -> Batch:
        return Batch(_rows(self._block, position, num, step)[:, None, None, :], None)

    def _block(self, block: int) -> np.ndarray:
        rng = np.random.default_rng(derive(self.seed, "points", block))
        chosen = self.centres[rng.integers(0, len(self.centres), _BLOCK)]
        return (chosen + rng.normal(0, self.deviation, chosen.shape)).astype(np.float32)

    def found(self, points: np.ndarray) -> tuple[int, float]:
        """(modes, quality) of points [N,2]: how many centres have a point within three deviations, and the share of
        points that are within three deviations of one (the protocol of VEEGAN, arXiv:1705.07761, section 5.1)."""
        distances = np.linalg.norm(points[:, None] - self.centres, axis=2)
        good = distances.min(1) <= 3 * self.deviation
        return len(set(distances.argmin(1)[good].tolist())), float(good.mean())


def grid25(seed: int = 0) -> Mixture:
    """25 Gaussians on a grid of spacing 2 with deviation 0.05, over 5 (arXiv:1712.04086, section 4.1)."""
    line = np.arange(-4, 5, 2) / 5
    return Mixture(np.stack(np.meshgrid(line, line), -1).reshape(-1, 2), 0.05 / 5, seed)


def ring8(seed: int = 0) -> Mixture:
    """8 Gaussians of deviation 0.02 on a ring of radius 2, over 2.5 (arXiv:1611.02163, section 3.1)."""
    angles = 2 * math.pi * np.arange(8) / 8
    return Mixture(2 * np.stack([np.cos(angles), np.sin(angles)], 1) / 2.5, 0.02 / 2.5, seed)


@dataclass(frozen=True)
class Stacked:
    """Digits, one a colour channel: 10^3 = 1,000 modes (arXiv:1611.02163, section 3.3).

    digits: uint8 [N,S,S,1] to draw from; at(position, num, step): uint8 [num,S,S,3], by seed and position.
    """

    digits: np.ndarray
    seed: int = 0
    num_classes: int = 0

    def at(self, position: int, num: int, step: int = 1) -> Batch:
        chosen = _rows(self._block, position, num, step)
        return Batch(np.concatenate([self.digits[chosen[:, i]] for i in range(3)], 3), None)

    def _block(self, block: int) -> np.ndarray:
        rng = np.random.default_rng(derive(self.seed, "stacked", block))
        return rng.integers(0, len(self.digits), (_BLOCK, 3))
