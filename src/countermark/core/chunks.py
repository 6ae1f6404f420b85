"""The parts of a PNG, JPEG or WebP file as a decoder walks them, damaged ones too: nothing is checked, nothing decoded.

PNG: ISO/IEC 15948. JPEG: ITU-T T.81 annex B. WebP: RFC 9649.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

MAX_STEPS = 100_000
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
_AFTER_FILL = re.compile(rb"[^\xff]")
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7]")


class Excessive(ValueError):
    """Reading the file would take far more effort than its picture is worth."""


class Chunk(NamedTuple):
    """What a part carries is data[body:stop]; `stop` may lie behind the end of the file."""

    kind: bytes
    body: int
    stop: int


def chunks(data: bytes, container: str) -> Iterator[Chunk]:
    """The parts of `data` ('png', 'jpeg' or 'webp') in order; JPEG parts are named by their marker's second byte.

    Raises Excessive after MAX_STEPS parts. Before a JPEG's first scan the bytes between parts count as parts, for a
    decoder may walk them one by one.
    """
    return {"png": _png, "jpeg": _jpeg, "webp": _webp}[container](data)


def _png(data: bytes) -> Iterator[Chunk]:
    position, steps = 8, 0
    while position + 8 <= len(data):
        steps = _step(steps, 1)
        body = position + 8
        stop = body + int.from_bytes(data[position : position + 4], "big")
        yield Chunk(data[position + 4 : body], body, stop)
        position = stop + 4


def _webp(data: bytes) -> Iterator[Chunk]:
    position, steps = 12, 0
    while position + 8 <= len(data):
        steps = _step(steps, 1)
        body = position + 8
        stop = body + int.from_bytes(data[position + 4 : body], "little")
        yield Chunk(data[position : position + 4], body, stop)
        position = stop + stop % 2


def _jpeg(data: bytes) -> Iterator[Chunk]:
    position, steps, in_scan = 2, 0, False
    while position + 4 <= len(data):
        if in_scan:
            following = _AFTER_SCAN.search(data, position)
            if following is None:
                return
            position = following.start()
        marker_at = data.find(b"\xff", position)
        after_fill = _AFTER_FILL.search(data, marker_at, marker_at + MAX_STEPS) if marker_at >= 0 else None
        if after_fill is None:
            _step(steps, 0 if in_scan else len(data) - position)
            return
        steps = _step(steps, 1 if in_scan else after_fill.start() - position)
        marker, body = data[after_fill.start()], after_fill.start() + 1
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD9:  # these carry nothing
            stop = body
        else:
            stop = body + int.from_bytes(data[body : body + 2], "big")
            body += 2
        yield Chunk(bytes([marker]), body, stop)
        if marker == END_OF_IMAGE and in_scan:
            return
        in_scan = in_scan or marker == START_OF_SCAN
        position = stop


def _step(steps: int, more: int) -> int:
    if steps + more > MAX_STEPS:
        raise Excessive(f"more than {MAX_STEPS} parts")
    return steps + more
