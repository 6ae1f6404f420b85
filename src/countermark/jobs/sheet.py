"""The contact sheet of `countermark data`: one self-contained page with pictures, counts, duplicates and broken files.

The pictures are the user's own, made smaller: nothing was made, so nothing is marked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from countermark.core.files import write_atomic
from countermark.core.media import Image
from countermark.data.sources import Source
from countermark.jobs.page import picture_url, render
from countermark.provenance.encode import encode

NUM_PICTURES = 200
NUM_GROUPS, NUM_IN_A_GROUP = 20, 6
NUM_BARS = 50
SIDE_PX = 96
QUALITY = 85


def write(path: Path, source: Source, found: Mapping[str, Any], sound: Sequence[int]) -> None:
    """Write the page. found: what `inspect_data` found, with pictures by their numbers. sound: those that can be read.

    Raises CountermarkError when it cannot be written.
    """
    num = min(NUM_PICTURES, len(sound))
    some = [sound[i * len(sound) // num] for i in range(num)]
    alike = {
        kind: [_shown(source, group[:NUM_IN_A_GROUP]) for group in groups["listed"][:NUM_GROUPS]]
        for kind, groups in found["duplicates"].items()
    }
    bars = {key: _bars(found[key]) for key in ("sizes", "classes", "parts")}
    page = render("sheet.html", found=found, pictures=_shown(source, some), alike=alike, bars=bars, side=SIDE_PX)
    write_atomic(path, page.encode())


def _shown(source: Source, numbers: Iterable[int]) -> list[dict[str, Any]]:
    return [{"name": source.label(number), "url": _thumbnail(source.read(number)[0])} for number in numbers]


def _thumbnail(image: Image) -> str:
    """A data: address of the picture, no larger than SIDE_PX: a small one as it is, a larger one as JPEG."""
    scale = SIDE_PX / max(image.width, image.height)
    if scale >= 1:
        return picture_url(encode(image, "png"), "png")
    picture = PIL.Image.fromarray(image.samples[..., 0] if image.channels == 1 else image.samples)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    smaller = np.asarray(picture.resize(size, PIL.Image.Resampling.LANCZOS)).reshape(size[1], size[0], -1)
    return picture_url(encode(Image(smaller), "jpeg", quality=QUALITY), "jpeg")


def _bars(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """The largest counts, each with its part of the largest."""
    largest = sorted(counts.items(), key=lambda item: -item[1])[:NUM_BARS]
    return [{"name": name, "count": count, "percent": 100 * count / max(1, largest[0][1])} for name, count in largest]
