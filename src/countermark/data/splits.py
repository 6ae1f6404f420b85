"""One split for every set, by the hash of the independent unit, so that no photograph is on two sides."""

from __future__ import annotations

import numpy as np

# Generators, watermarks and detectors train on their own part; thresholds are set on `calibration`; tests see `test`.
SHARES = {"generator": 0.6, "detector": 0.2, "calibration": 0.1, "test": 0.1}


def part_of(unit_sha256: str) -> str:
    """The part ('generator', 'detector', 'calibration' or 'test') of the unit with this sha256 (hexadecimal)."""
    place = int(unit_sha256[:13], 16) / 16**13
    for part, share in SHARES.items():
        if place < share:
            return part
        place -= share
    return "test"


def indices_of(part: str, units_sha256: list[str]) -> np.ndarray:
    """The indices of the pictures whose unit falls into `part`; 'all' takes every one."""
    if part == "all":
        return np.arange(len(units_sha256))
    return np.array([i for i, unit in enumerate(units_sha256) if part_of(unit) == part], np.int64)
