"""`countermark sample`: pictures of a run, each released with its marks, and one grid of them all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from countermark.core.errors import UsageError
from countermark.core.media import MAX_PIXELS, SUFFIXES, Image
from countermark.core.pixels import to_uint8
from countermark.core.tracking import Track, untracked
from countermark.jobs.watch import tiled
from countermark.nn.style import StyleGenerator
from countermark.provenance import settings
from countermark.provenance.release import Origin, Released, release
from countermark.training.run import check_output
from countermark.training.trained import BATCH, Trained, load_run

MAX_GRID = 10  # rows and columns


def sample(
    run: str | Path,
    *,
    out: str | Path,
    seeds: Sequence[int],
    classes: Sequence[int] | None = None,
    truncation: float | None = None,
    format: str = "png",
    native_size: bool = False,
    model: str | None = None,
    certificate: str | Path | None = None,
    key: str | Path | None = None,
    track: Track = untracked,
) -> list[dict[str, Any]]:
    """Release one picture a seed as `seed0007.png` in `out`, and `grid.png` of the first hundred.

    classes: taken in turn; drawn from the seeds if None. truncation: as `Trained.codes` has it; None for none.
    native_size: keep pictures under 128 px small (no watermark). model: FILE.py:SPEC for a run of a model of the
    user's own. certificate, key: PEM files to sign with (chain, leaf first), else those of the user's settings.json,
    else the installation's own.
    Returns an entry a picture: path, seed, sha256, watermark payload (hex or None) and why there is none.
    """
    if not seeds:
        raise UsageError("seeds: none given; try --seeds 0-63")
    trained = load_run(run, model)
    chosen = None if classes is None else [classes[i % len(classes)] for i in range(len(seeds))]
    trained.conditions(seeds, chosen)
    shelf = _Shelf.at(out, trained, truncation, format, native_size, settings.load(certificate, key))
    released = []
    for start in track(range(0, len(seeds), BATCH), "sampling", -(-len(seeds) // BATCH)):
        part = slice(start, start + BATCH)
        images = to_uint8(trained.sample(seeds[part], None if chosen is None else chosen[part], truncation))
        released += [shelf.put(samples, seed) for samples, seed in zip(images, seeds[part], strict=True)]
    if len(seeds) > 1:
        first = slice(_grid_side(trained) ** 2)
        grid = to_uint8(trained.sample(seeds[first], chosen and chosen[first], truncation))
        shelf.release(tiled(grid), "grid.png", seeds[first])
    return released


def mix(
    run: str | Path,
    *,
    out: str | Path,
    seeds: Sequence[int],
    mix_seeds: Sequence[int],
    mix_layers: Sequence[int] | None = None,
    classes: Sequence[int] | None = None,
    truncation: float | None = None,
    format: str = "png",
    native_size: bool = False,
    model: str | None = None,
    certificate: str | Path | None = None,
    key: str | Path | None = None,
    track: Track = untracked,
) -> list[dict[str, Any]]:
    """Style mixing (arXiv:1812.04948, section 3.1): `seed0007-0100.png` for each of `seeds` with each of `mix_seeds`.

    mix_layers: those whose styles are of `mix_seeds`; the second half, which is fine detail and colour, if None.
    `grid.png` has a row for each of `seeds` and a column for each of `mix_seeds`, up to nine, with both beside them.
    All else is as in `sample`. Returns its entries, whose `seed` is a list of two.
    Raises UsageError for a generator without styles, and for layers that it doesn't have.
    """
    if not seeds or not mix_seeds:
        raise UsageError("mix-seeds: none to mix; try --seeds 0-3 --mix-seeds 100-103")
    trained = load_run(run, model)
    layers = _layers(trained, mix_layers)
    rows, columns = (trained.codes(given, classes, truncation) for given in (seeds, mix_seeds))
    shelf = _Shelf.at(out, trained, truncation, format, native_size, settings.load(certificate, key))
    num_shown = _grid_side(trained) - 1  # beside those that are mixed
    released, grid = [], [to_uint8(trained.pictures(columns[:num_shown], None))]
    grid.insert(0, np.zeros_like(grid[0][:1]))
    for row in track(range(len(seeds)), "mixing", len(seeds)):
        mixed = rows[row].repeat(len(columns), 1, 1)
        mixed[:, layers] = columns[:, layers]
        images = to_uint8(trained.pictures(mixed, None))
        released += [shelf.put(samples, seeds[row], seed) for samples, seed in zip(images, mix_seeds, strict=True)]
        if row < num_shown:
            grid += [to_uint8(trained.pictures(rows[row : row + 1], None)), images[:num_shown]]
    overview = tiled(np.concatenate(grid), 1 + len(grid[1]))
    shelf.release(overview, "grid.png", (*seeds[:num_shown], *mix_seeds[:num_shown]))
    return released


def _grid_side(trained: Trained) -> int:
    """How many pictures a row and a column of a grid have, which is released as one picture."""
    return max(min(MAX_GRID, math.isqrt(MAX_PIXELS) // trained.settings.size), 2)


def _layers(trained: Trained, asked: Sequence[int] | None) -> list[int]:
    G = trained.generator
    if not isinstance(G, StyleGenerator):
        raise UsageError(f"mix-seeds: {trained.spec.name} has no styles to mix; give a run of a style-based generator")
    num = G.mapping.num_ws
    layers = list(range(num // 2, num)) if asked is None else list(asked)
    if not layers or min(layers) < 0 or max(layers) >= num:
        raise UsageError(f"mix-layers: {layers} are not among this generator's layers 0-{num - 1}")
    return layers


@dataclass(frozen=True)
class _Shelf:
    """Where the pictures of a run go, and how."""

    folder: Path
    trained: Trained
    truncation: float | None
    format: str
    native_size: bool
    policy: settings.Settings

    @staticmethod
    def at(out: str | Path, *how: Any) -> _Shelf:
        """The shelf in folder `out`. Raises UsageError where it is a run, or cannot be written."""
        check_output(Path(out), "its pictures")
        return _Shelf(Path(out), *how)

    def put(self, samples: np.ndarray, *seeds: int) -> dict[str, Any]:
        """Release one picture uint8 [H,W,C] of one seed, or mixed of several; its entry."""
        name = f"seed{'-'.join(f'{seed:04d}' for seed in seeds)}{SUFFIXES[self.format]}"
        left = self.release(samples, name, seeds, native_size=self.native_size)
        mark = left.payload.hex() if left.payload else None
        seed = seeds[0] if len(seeds) == 1 else list(seeds)
        return {"path": str(left.path), "seed": seed, "sha256": left.sha256, "watermark": mark, "reason": left.reason}

    def release(self, samples: np.ndarray, name: str, seeds: Sequence[int], *, native_size: bool = False) -> Released:
        trained = self.trained
        origin = Origin("made", trained.spec.name, run=trained.run_id, seed=tuple(seeds), truncation=self.truncation)
        return release(Image(samples), self.folder / name, origin=origin, native_size=native_size, policy=self.policy)
