"""`countermark sample`: pictures of a run, each released with its marks, and one grid of them all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from countermark.core.errors import UsageError
from countermark.core.media import SUFFIXES, Image
from countermark.core.pixels import to_uint8
from countermark.jobs.watch import release_grid
from countermark.provenance import settings
from countermark.provenance.release import Origin, release
from countermark.training.run import check_writable, is_run
from countermark.training.trained import BATCH, load_run

MAX_GRID = 100

Track = Callable[[Iterable[int], str, int], Iterable[int]]


def sample(
    run: str | Path,
    *,
    out: str | Path,
    seeds: Sequence[int],
    classes: Sequence[int] | None = None,
    format: str = "png",
    native_size: bool = False,
    model: str | None = None,
    certificate: str | Path | None = None,
    key: str | Path | None = None,
    track: Track = lambda items, what, total: items,
) -> list[dict[str, Any]]:
    """Release one picture a seed as `seed0007.png` in `out`, and `grid.png` of the first hundred.

    classes: taken in turn; drawn from the seeds if None. native_size: keep pictures under 128 px small (no watermark).
    model: FILE.py:SPEC for a run of a model of the user's own. certificate, key: PEM files to sign with (chain, leaf
    first), else those of the user's settings.json, else the installation's own.
    Returns an entry a picture: path, seed, sha256, watermark payload (hex or None) and why there is none.
    """
    if not seeds:
        raise UsageError("seeds: none given; try --seeds 0-63")
    trained = load_run(Path(run), model)
    chosen = None if classes is None else [classes[i % len(classes)] for i in range(len(seeds))]
    trained.conditions(seeds, chosen)
    policy = settings.load()
    if certificate is not None or key is not None:
        policy = dataclasses.replace(policy, certificate=_path(certificate), key=_path(key))
    folder = Path(out)
    check_writable(folder)
    if is_run(folder):
        raise UsageError(f"out: {folder} is a run; choose another folder for its pictures")
    released = []
    for start in track(range(0, len(seeds), BATCH), "sampling", -(-len(seeds) // BATCH)):
        part = slice(start, start + BATCH)
        images = to_uint8(trained.sample(seeds[part], None if chosen is None else chosen[part]))
        for seed, samples in zip(seeds[part], images, strict=True):
            origin = Origin(kind="made", model=trained.spec.name, run=trained.run_id, seed=seed)
            path = folder / f"seed{seed:04d}{SUFFIXES[format]}"
            left = release(Image(samples), path, origin=origin, native_size=native_size, policy=policy)
            mark = left.payload.hex() if left.payload else None
            released.append(
                {"path": str(path), "seed": seed, "sha256": left.sha256, "watermark": mark, "reason": left.reason}
            )
    if len(seeds) > 1:
        release_grid(trained, seeds[:MAX_GRID], chosen and chosen[:MAX_GRID], folder / "grid.png")
    return released


def _path(name: str | Path | None) -> Path | None:
    return None if name is None else Path(name)
