"""`countermark project`: the codes whose pictures come closest to given ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.files import read_bounded, sha256_hex, write_atomic
from countermark.core.media import MAX_FILE_BYTES, Image, decode_image
from countermark.core.pixels import to_tensor, to_uint8
from countermark.core.tracking import Track, untracked
from countermark.data.image import fitted
from countermark.forensics.native import cell_means, repetition_factor
from countermark.perception.efficientnet import load_efflite0
from countermark.perception.features import as_channels
from countermark.provenance.release import Origin, release
from countermark.training.projection import Projection, Space, perceptual_distance, project, pyramid_distance
from countermark.training.run import check_output
from countermark.training.trained import Trained, load_run

STEPS = 1000
FEATURES = "efflite0"


def project_files(
    run: str | Path,
    files: Sequence[str | Path],
    *,
    out: str | Path,
    steps: int = STEPS,
    seed: int = 0,
    space: Space | None = None,
    classes: Sequence[int] | None = None,
    features: str | None = None,
    model: str | None = None,
    track: Track = untracked,
) -> list[dict[str, Any]]:
    """Search the picture of each file in what the generator of `run` can make, and release what comes closest.

    `a.jpg` gives `a.projected.png`, an edit of its parent and never `made`, and `a.code.safetensors` with `codes`
    [1,...] and, for a run with classes, `c` [1,num_classes]: `trained.pictures(codes, c)` is the picture, and what is
    mixed, moved along a direction or released further from there is an edit of the parent too. An enlargement by pixel
    repetition is undone; others are cropped in the centre and resized to the generator's size.
    space, classes, seed: as `training.projection.project` has them. features: efflite0 compares by its features too.
    model: FILE.py:SPEC for a run of a model of the user's own.
    Returns an entry a file: path, picture, code, psnr_db (against the resized parent, before the marks), space, sha256,
    watermark payload (hex or None); or path and error for a file that cannot be read or released.
    Raises UsageError for what cannot be asked.
    """
    if steps < 1:
        raise UsageError(f"steps: {steps} is not a number of steps; give 1 or more, such as {STEPS}")
    if features not in (None, FEATURES):
        raise UsageError(f"features: {features} is not known; choose {FEATURES} or leave it out")
    paths = [Path(file) for file in files]
    _check_names(paths)
    trained, folder = load_run(run, model), Path(out)
    check_output(folder, "its pictures")
    distance = perceptual_distance(load_efflite0()) if features else pyramid_distance
    entries: list[dict[str, Any]] = []
    for i, path in enumerate(paths, 1):
        number = f"{i} of {len(paths)}"
        try:
            parent = read_bounded(path, MAX_FILE_BYTES)
            target = _target(trained, decode_image(parent, name=str(path)))
            found = project(
                trained,
                target,
                steps=steps,
                seed=seed,
                space=space,
                classes=classes,
                distance=distance,
                track=lambda items, what, total: track(items, f"{what}, {number}", total),  # noqa: B023 - called at once
            )
            entries.append({"path": str(path), **_released(trained, found, parent, folder / path.stem)})
        except UsageError:
            raise
        except CountermarkError as error:
            entries.append({"path": str(path), "error": str(error)})
    return entries


def as_lines(entry: dict[str, Any]) -> list[str]:
    """What came of one file, as people read it. What comes from the file is still to be escaped."""
    return [f"{entry['path']}: {entry['psnr_db']:.1f} dB in {entry['space']}: {entry['picture']}, {entry['code']}"]


def _check_names(paths: Sequence[Path]) -> None:
    """Raises UsageError when two files would leave one name."""
    name, count = Counter(path.stem for path in paths).most_common(1)[0] if paths else ("", 0)
    if count > 1:
        raise UsageError(f"file: {count} files are called {name}; project them into folders of their own")


def _target(trained: Trained, image: Image) -> Tensor:
    """The picture [1,C,S,S] in [-1,1] at the size and with the channels of the generator."""
    size = trained.settings.size
    times = repetition_factor(image.samples, size)
    samples = cell_means(image.samples, times) if times else fitted(image.samples, size)
    return to_tensor(as_channels(samples[None], trained.settings.channels))


def _released(trained: Trained, found: Projection, parent: bytes, name: Path) -> dict[str, Any]:
    """Release the picture and write its code beside it; what the entry says of them."""
    origin = Origin(kind="edited", model=trained.spec.name, run=trained.run_id, parent=parent)
    picture, code = name.with_name(f"{name.name}.projected.png"), name.with_name(f"{name.name}.code.safetensors")
    left = release(Image(to_uint8(found.picture)[0]), picture, origin=origin)
    tensors = {"codes": found.codes} if found.c is None else {"codes": found.codes, "c": found.c}
    said = {"model": origin.model, "run": trained.run_id, "space": found.space, "parent_sha256": sha256_hex(parent)}
    write_atomic(code, save({key: tensor.contiguous() for key, tensor in tensors.items()}, said))
    return {
        "picture": str(picture),
        "code": str(code),
        "psnr_db": found.psnr_db,
        "space": found.space,
        "sha256": left.sha256,
        "watermark": left.payload.hex() if left.payload else None,
    }
