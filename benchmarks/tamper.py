"""Flip every byte of released files and count the flips after which the credentials are still trusted: none may be.

python -m benchmarks.tamper [--positions N] [--flips 2] [--side 128] [--workers 2]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import record
from countermark.core.media import Image
from countermark.provenance import credentials, keys
from countermark.provenance.release import Origin, release

FORMATS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
FIXED_FLIPS = (0x01, 0xFF, 0x80, 0x20)


def picture(side: int) -> Image:
    """A smooth picture with some texture, uint8 [side,side,3]."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:side, 0:side] / side
    waves = [127 + 90 * np.sin(6 * x + 4 * y * channel) for channel in range(3)]
    noisy = np.stack(waves, axis=2) + rng.normal(0, 2, (side, side, 1))
    return Image(noisy.clip(0, 255).astype(np.uint8))


def flips_at(position: int, num_flips: int) -> list[int]:
    """The values that the byte at `position` is changed by: fixed ones first, then drawn ones."""
    rng = np.random.default_rng(position)
    drawn = [int(value) for value in rng.permutation(np.arange(1, 256)) if value not in FIXED_FLIPS]
    return [*FIXED_FLIPS, *drawn][:num_flips]


def states(data: bytes, container: str, trust: str, num_flips: int, positions: list[int]) -> dict[str, list[list[int]]]:
    """[position, flip] of every flip tried, by the state that the credentials are in after it."""
    found: dict[str, list[list[int]]] = {}
    changed = bytearray(data)
    for position in positions:
        for flip in flips_at(position, num_flips):
            changed[position] ^= flip
            state = credentials.read(bytes(changed), container, trust).state
            changed[position] ^= flip
            found.setdefault(state, []).append([position, flip])
    return found


def sweep(
    data: bytes, container: str, num_positions: int | None, num_flips: int, workers: int
) -> tuple[list[object], list[list[int]]]:
    """A row of counts, and the flips that left trust; all positions, or `num_positions` of them spread evenly."""
    step = 1 if num_positions is None else max(1, len(data) // num_positions)
    positions = list(range(0, len(data), step))
    chunks = [positions[k::64] for k in range(64)]
    counts: dict[str, int] = {}
    trusted: list[list[int]] = []
    with ProcessPoolExecutor(workers) as pool:
        for found in pool.map(partial(states, data, container, keys.trust_list(), num_flips), chunks):
            trusted += found.get("trusted", [])
            for state, flips in found.items():
                counts[state] = counts.get(state, 0) + len(flips)
    untouched = credentials.read(data, container, keys.trust_list()).state
    others = [counts.get(state, 0) for state in ("invalid", "absent", "valid")]
    return [container, len(data), untouched, sum(counts.values()), len(trusted), *others], trusted


def main() -> None:
    """Run the sweep for the three formats, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--positions", type=int, help="byte positions a file (default: all)")
    parser.add_argument("--flips", type=int, default=2, help="values that each byte is changed by")
    parser.add_argument("--side", type=int, default=128, help="pixels")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    command = f"python -m benchmarks.tamper --flips {options.flips}"
    if options.positions is not None:
        command += f" --positions {options.positions}"
    rows, trusted = [], {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["COUNTERMARK_HOME"] = folder
        for container, suffix in FORMATS.items():
            origin = Origin("made", "tamper", run="tamper", seed=0)
            small = options.side < 128
            file = release(picture(options.side), Path(folder) / f"p{suffix}", origin=origin, native_size=small)
            row, trusted[container] = sweep(file.data, container, options.positions, options.flips, options.workers)
            record.require(not trusted[container], f"no flip in a {container} file leaves trust")
            rows.append(row)
    header = ["format", "bytes", "untouched", "flips", "still trusted", "invalid", "absent", "valid"]
    record.write("tamper", command, header, rows, trusted=trusted)


if __name__ == "__main__":
    main()
