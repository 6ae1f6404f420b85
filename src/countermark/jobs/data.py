"""`countermark data`: what a source holds, before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.files import sha256_hex
from countermark.core.tracking import Track, untracked
from countermark.data.packaged import SYNTHETIC
from countermark.data.reading import attempts
from countermark.data.sources import Source, open_source
from countermark.data.splits import SHARES, part_of
from countermark.jobs import pack, sheet
from countermark.jobs.duplicates import exact_groups, near_groups
from countermark.jobs.page import check_page
from countermark.provenance.perceptual import NUM_BITS, perceptual_hash
from countermark.provenance.registry import MAX_NEAR_BITS

MAX_LISTED = 100  # broken files, and groups of duplicates of a kind


@dataclass(frozen=True, slots=True)
class Look:
    """What is noted of a picture: its size in pixels, its unit, the sha256 of its pixels, and its perceptual hash.

    look: None where there is too little to see, or where the hash has more bits than the picture has pixels.
    """

    width: int
    height: int
    channels: int
    unit: str
    pixels: str
    look: bytes | None


def inspect_data(
    name: str | Path,
    *,
    out: str | Path | None = None,
    size: int | None = None,
    page: str | Path | None = None,
    track: Track = untracked,
) -> dict[str, Any]:
    """Counts, sizes, channels, classes, parts, duplicates and broken files of a source; every picture is decoded.

    out: pack the sound pictures as x.zip, x.tar or shards/{000..009}.tar (see pack.py). size: centre crop and resize
    them for that. page: write a contact sheet as HTML. Broken files are listed and end nothing.
    Raises UsageError for a source or an output that cannot be, CountermarkError when nothing can be written.
    """
    if (out or page) and str(name) in SYNTHETIC:
        raise UsageError(f"data: a generator made the pictures of {name}; what is made leaves marked or not at all")
    if size is not None and out is None:
        raise UsageError(f"size: {size} is for --pack; give --pack OUT, too")
    source = open_source(name, track=track)
    outs = None if out is None else pack.places(out, name, size)
    if page is not None:
        if Path(page).suffix.lower() not in (".html", ".htm"):
            raise UsageError(f"sheet: {page} is no name for a page; use .html, as in sheet.html")
        check_page(Path(page), "sheet")
    looks, broken = _looked_at(source, track)
    found = _report(source, looks, broken)
    if page is not None:
        sheet.write(Path(page), source, found, sorted(looks))
    if outs is not None:
        found["packed"] = pack.pack(source, sorted(looks), outs, size=size, track=track)
    return _named(found, source)


def _looked_at(source: Source, track: Track) -> tuple[dict[int, Look], dict[int, str]]:
    """The sound pictures by their number, and what is wrong with the broken ones."""

    def look(index: int) -> Look:
        image, unit = source.read(index)
        pixels = sha256_hex(repr(image.samples.shape).encode() + image.samples.tobytes())
        hashed = perceptual_hash(image) if image.width * image.height >= NUM_BITS else None
        return Look(image.width, image.height, image.channels, unit, pixels, hashed)

    looks, broken = {}, {}
    for index, seen in enumerate(attempts(look, len(source), track, "looking at pictures")):
        if isinstance(seen, CountermarkError):
            broken[index] = str(seen)
        else:
            looks[index] = seen
    return looks, broken


def _report(source: Source, looks: Mapping[int, Look], broken: Mapping[int, str]) -> dict[str, Any]:
    """The document, with pictures by their numbers."""
    sizes = Counter((look.width, look.height) for look in looks.values())
    parts = Counter(part_of(look.unit) for look in looks.values())
    exact = exact_groups({index: look.pixels for index, look in looks.items()})
    near = near_groups({index: look.look for index, look in looks.items() if look.look}, exact)
    return {
        "source": source.name,
        "pictures": len(looks),
        "sizes": {f"{width}x{height}": count for (width, height), count in sorted(sizes.items())},
        "channels": {str(key): count for key, count in sorted(Counter(x.channels for x in looks.values()).items())},
        "classes": _classes(source, sorted(looks)),
        "parts": {part: parts[part] for part in SHARES},
        "duplicates": {"exact": _listed(exact), "near": {"max_bits": MAX_NEAR_BITS, **_listed(near)}},
        "broken": {"count": len(broken), "listed": [{"error": broken[i]} for i in sorted(broken)[:MAX_LISTED]]},
    }


def _classes(source: Source, sound: Sequence[int]) -> dict[str, int]:
    if source.classes is None:
        return {}
    counts = np.bincount(source.classes[list(sound)], minlength=len(source.class_names))
    return dict(zip(source.class_names, counts.tolist(), strict=True))


def _listed(groups: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Groups of alike pictures: how many, how many pictures beyond the first of each, and the largest."""
    largest = sorted(groups, key=lambda group: (-len(group), group))
    return {"groups": len(groups), "surplus": sum(len(group) - 1 for group in groups), "listed": largest[:MAX_LISTED]}


def _named(found: dict[str, Any], source: Source) -> dict[str, Any]:
    """The document with the pictures' names in place of their numbers."""
    for alike in found["duplicates"].values():
        alike["listed"] = [[source.label(index) for index in group] for group in alike["listed"]]
    return found


def as_lines(found: Mapping[str, Any]) -> list[str]:
    """The document for people."""
    lines = [f"{found['source']}: {found['pictures']:,} pictures"]
    for key in ("sizes", "channels", "classes", "parts"):
        if found[key]:
            some = list(found[key].items())[:MAX_LISTED]
            more = f", and {len(found[key]) - len(some)} more" if len(found[key]) > len(some) else ""
            lines.append(f"{key}: {', '.join(f'{name} {count:,}' for name, count in some)}{more}")
    for kind, alike in found["duplicates"].items():
        what = "the same pixels" if kind == "exact" else f"a look within {alike['max_bits']} of 256 bits"
        lines.append(f"{kind} duplicates ({what}): {alike['surplus']:,} to spare in {alike['groups']:,} groups")
        lines += [f"  {' = '.join(group[:4])}{' ...' if len(group) > 4 else ''}" for group in alike["listed"][:10]]
    lines.append(f"broken: {found['broken']['count']:,}")
    lines += [f"  {entry['error']}" for entry in found["broken"]["listed"]]
    if "packed" in found:
        packed = found["packed"]
        first, *others = packed["files"]
        more = f" and {len(others)} more" if others else ""
        lines.append(f"packed: {packed['pictures']:,} pictures, {packed['bytes']:,} bytes, in {first}{more}")
    return lines
