"""`countermark interpolate`: a clip that walks through the pictures of some seeds, every frame with its marks.

The way goes through the seeds' codes along a cubic spline, so that neither direction nor speed jumps at a seed. Codes
of a style-based generator lie in W, whose straight lines are smooth changes (arXiv:1812.04948, section 4.1), and hold
the class. A z is normal, hence close to a sphere, and is kept there, since a generator has seen nothing else
(arXiv:1609.04468): its length lies between those of the two seeds around it. Beside a z the classes fade linearly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from countermark.core.errors import UsageError
from countermark.core.media import Image
from countermark.core.pixels import to_uint8
from countermark.core.tracking import Track, untracked
from countermark.core.video import MAX_DECODED_PIXELS, MAX_DURATION_S, MAX_FRAMES
from countermark.nn.style import StyleGenerator
from countermark.provenance import settings
from countermark.provenance.encode import check_clip
from countermark.provenance.release import Origin, release_video, released_size
from countermark.training.run import check_output_file
from countermark.training.trained import Trained, load_run

BATCH = 16  # what of a clip is in memory at a time


def interpolate(
    run: str | Path,
    *,
    out: str | Path,
    seeds: Sequence[int],
    frames_per_seed: int = 60,
    fps: float = 30.0,
    loop: bool = True,
    classes: Sequence[int] | None = None,
    truncation: float | None = None,
    model: str | None = None,
    certificate: str | Path | None = None,
    key: str | Path | None = None,
    track: Track = untracked,
) -> dict[str, Any]:
    """Release a clip `out` (.mp4) from each of `seeds` to the next in `frames_per_seed` frames, `fps` a second.

    loop: back to the first seed as well, so that the clip can be repeated; else it ends at the last one.
    classes, truncation, model, certificate, key: as in `sample`; small pictures are always enlarged.
    Returns path, seeds, frames, fps, sha256 and watermark payload (hex).
    """
    if len(seeds) < 2:
        raise UsageError("seeds: a way needs two at least; try --seeds 0-5")
    if frames_per_seed < 1:
        raise UsageError(f"frames-per-seed: {frames_per_seed} is too few; try 60")
    trained, path = load_run(run, model), Path(out)
    num = len(seeds) * frames_per_seed if loop else (len(seeds) - 1) * frames_per_seed + 1
    check_clip(fps)
    _check_number(num, trained.settings.size, fps)
    check_output_file(path, ".mp4", "a clip")
    codes, c = trained.codes(seeds, classes, truncation), trained.conditions(seeds, classes)
    times = np.arange(num) / frames_per_seed
    shown = track(range(num), "making frames", num)
    frames = (frame for frame, _ in zip(_frames(trained, codes, c, times, loop), shown, strict=True))
    origin = Origin("made", trained.spec.name, run=trained.run_id, seed=tuple(seeds), truncation=truncation)
    left = release_video(frames, fps, path, origin=origin, policy=settings.load(certificate, key))
    mark = left.payload.hex() if left.payload else None
    about = {"path": str(path), "seeds": list(seeds), "frames": num, "fps": fps}
    return {**about, "sha256": left.sha256, "watermark": mark}


def _check_number(num: int, size: int, fps: float) -> None:
    """Raises UsageError for more frames than a clip can have, before hours go into them."""
    side, _ = released_size(size, size, clip=True)
    most = min(MAX_FRAMES, MAX_DECODED_PIXELS // side**2, int(MAX_DURATION_S * fps))
    if num > most:
        raise UsageError(
            f"frames-per-seed: {num} frames in all are more than the {most} that a clip of {side} px at"
            f" {fps:g} a second can have; give less, or fewer seeds"
        )


def _frames(trained: Trained, codes: Tensor, c: Tensor | None, times: np.ndarray, loop: bool) -> Iterator[Image]:
    is_style = isinstance(trained.generator, StyleGenerator)
    for start in range(0, len(times), BATCH):
        part = times[start : start + BATCH]
        here = along(codes, part, loop)
        if not is_style:
            lengths = between(codes.norm(dim=1, keepdim=True), part, loop)
            here = here * lengths / here.norm(dim=1, keepdim=True).clamp_min(1e-8)
        yield from map(Image, to_uint8(trained.pictures(here, None if c is None else between(c, part, loop))))


def along(codes: Tensor, times: np.ndarray, loop: bool) -> Tensor:
    """The points [T,...] of the cubic spline through `codes` [N,...] at times 0 to N-1, or in a loop up to N."""
    keys = torch.cat([codes, codes[:1]]) if loop else codes
    spline = CubicSpline(np.arange(len(keys)), keys.double().numpy(), bc_type="periodic" if loop else "natural")
    return torch.from_numpy(spline(times)).to(codes)


def between(keys: Tensor, times: np.ndarray, loop: bool) -> Tensor:
    """The points [T,...] of the straight lines from each of `keys` [N,...] to the next; in a loop, to the first too."""
    keys = torch.cat([keys, keys[:1]]) if loop else keys
    first = np.minimum(times.astype(int), len(keys) - 2)
    part = torch.from_numpy(times - first).to(keys).view(-1, *[1] * (keys.ndim - 1))
    return torch.lerp(keys[first], keys[first + 1], part)
