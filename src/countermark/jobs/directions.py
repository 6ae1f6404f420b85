"""`countermark directions`: ways to edit a run's pictures, found without labels, and what each does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from countermark.core.errors import UsageError
from countermark.core.files import write_atomic
from countermark.core.media import Image
from countermark.core.pixels import to_uint8
from countermark.jobs.watch import tiled
from countermark.provenance.release import Origin, release, released_size
from countermark.training.directions import find_directions
from countermark.training.run import check_output
from countermark.training.trained import load_run

NUM = 8
SEEDS = range(4)
STRENGTHS = (-3.0, 0.0, 3.0)


def release_directions(
    run: str | Path,
    *,
    out: str | Path,
    method: str = "sefa",
    num: int = NUM,
    strengths: Sequence[float] = STRENGTHS,
    seeds: Sequence[int] = SEEDS,
    classes: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    model: str | None = None,
) -> list[dict[str, Any]]:
    """Find `num` directions in the codes of `run` and release a picture of each: a row a seed, a column a strength.

    `directions.safetensors` holds `directions` [num,...] in the space of `trained.codes`; in Python,
    `trained.pictures(trained.codes(seeds) + 3 * directions[0], c)` is what the picture shows.
    method: sefa or ganspace. strengths: in standard deviations of codes along the direction. classes: of the rows, in
    turn; the directions are those of the first row's class. layers: of a style-based generator, those that are edited.
    model: FILE.py:SPEC for a run of a model of the user's own.
    Returns an entry a direction: direction, path, sha256, watermark payload (hex or None).
    Raises UsageError for what cannot be asked.
    """
    if not seeds:
        raise UsageError("seeds: none given; try --seeds 0-3")
    if not strengths:
        raise UsageError("strengths: none given; try --strengths -3,0,3")
    trained, folder = load_run(run, model), Path(out)
    _check_size(len(strengths), len(seeds), trained.settings.size)
    check_output(folder, "its directions")
    codes, c = trained.codes(seeds, classes), trained.conditions(seeds, classes)
    directions = find_directions(trained, method, num, c=None if c is None else c[:1], layers=layers)
    origin = Origin(kind="made", model=trained.spec.name, run=trained.run_id, seed=tuple(seeds))
    steps = torch.tensor(strengths)
    moved_c = None if c is None else c.repeat_interleave(len(steps), 0)
    released = []
    for i, direction in enumerate(directions):
        moved = codes[:, None] + steps.reshape(-1, *[1] * direction.ndim) * direction
        images = to_uint8(trained.pictures(moved.flatten(0, 1), moved_c))
        left = release(Image(tiled(images, len(steps))), folder / f"direction{i:02d}.png", origin=origin)
        mark = left.payload.hex() if left.payload else None
        released.append({"direction": i, "path": str(left.path), "sha256": left.sha256, "watermark": mark})
    said = {"model": trained.spec.name, "run": trained.run_id, "method": method}
    write_atomic(folder / "directions.safetensors", save({"directions": directions.contiguous()}, said))
    return released


def _check_size(num_columns: int, num_rows: int, size: int) -> None:
    """Raises UsageError for more strengths or seeds than a released picture has room for."""
    try:
        released_size(num_columns * size, num_rows * size)
    except UsageError as error:
        raise UsageError(
            f"seeds: {num_rows} with {num_columns} strengths at {size} px are too many for one picture ({error});"
            " give fewer of either"
        ) from error
