"""The boxes of the ISO base media file format (ISO/IEC 14496-12), of which MP4 is one: strict, and nothing decoded."""

from __future__ import annotations

from typing import NamedTuple

MAX_BOXES = 10_000  # side by side
_LARGE = 1  # a size of 1 says that the size follows in 64 bits (14496-12, 4.2)


class Misfit(ValueError):
    """Boxes do not hold to the format; the text says where."""


class Box(NamedTuple):
    """The whole box is data[start:stop], what it carries data[body:stop]."""

    kind: bytes
    start: int
    body: int
    stop: int


def boxes(data: bytes, start: int, stop: int) -> list[Box]:
    """The boxes that fill data[start:stop] exactly. Raises Misfit."""
    found: list[Box] = []
    while start < stop:
        head = 8 if data[start : start + 4] != _LARGE.to_bytes(4, "big") else 16
        length = int.from_bytes(data[start : start + 4] if head == 8 else data[start + 8 : start + 16], "big")
        kind = data[start + 4 : start + 8]
        if length < head or start + length > stop:
            raise Misfit(f"box {kind.decode('latin-1')!r} is longer than what holds it, or has no length")
        if len(found) == MAX_BOXES:
            raise Misfit(f"more than {MAX_BOXES} boxes side by side")
        found.append(Box(kind, start, start + head, start + length))
        start += length
    return found


def inside(data: bytes, box: Box) -> dict[bytes, list[Box]]:
    """What lies in `box`, by kind. Raises Misfit."""
    found: dict[bytes, list[Box]] = {}
    for child in boxes(data, box.body, box.stop):
        found.setdefault(child.kind, []).append(child)
    return found


def only(found: dict[bytes, list[Box]], kind: bytes) -> Box:
    """The one box of `kind` among `found`. Raises Misfit for none or several."""
    if len(found.get(kind, [])) != 1:
        raise Misfit(f"{len(found.get(kind, []))} boxes {kind.decode('latin-1')!r} where one is asked for")
    return found[kind][0]
