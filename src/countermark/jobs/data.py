"""`countermark data`: what a source holds, before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from countermark.data.image import inspect
from countermark.data.sources import open_source
from countermark.data.splits import SHARES, part_of


def inspect_data(name: str | Path) -> dict[str, Any]:
    """Pictures, sizes, classes and parts of a source. Every picture is decoded, so that a damaged one is found."""
    source = open_source(name)
    found = inspect(source)
    parts: Counter[str] = Counter()
    channels: Counter[int] = Counter()
    for index in range(len(source)):
        image, unit = source.read(index)
        parts[part_of(unit)] += 1
        channels[image.channels] += 1
    classes = (
        {}
        if source.classes is None
        else dict(zip(found.class_names, np.bincount(source.classes).tolist(), strict=True))
    )
    return {
        "source": found.name,
        "pictures": found.num_pictures,
        "sizes": {f"{width}x{height}": count for (width, height), count in sorted(found.sizes.items())},
        "channels": max(channels),
        "classes": classes,
        "parts": {part: parts[part] for part in SHARES},
    }
