"""The one thing that is read from EXIF: how the camera was turned. Exif 3.0 (CIPA DC-008), TIFF 6.0 section 2."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from countermark.core.chunks import START_OF_SCAN, chunks

EXIF_MARK = b"Exif\0\0"
_ORIENTATION, _SHORT = 0x0112, 3
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_HOLDERS = {"png": b"eXIf", "webp": b"EXIF", "jpeg": b"\xe1"}


def orientation(data: bytes, container: str) -> int:
    """The tag Orientation, 1 to 8, of a 'png', 'jpeg' or 'webp' file; 1 where there is none, or no sound one.

    Only the first EXIF part is looked at, and in a JPEG only what comes before the picture. Raises chunks.Excessive.
    """
    for chunk in chunks(data, container):
        if container == "jpeg" and chunk.kind[0] == START_OF_SCAN:
            break
        if chunk.kind == _HOLDERS[container] and (container != "jpeg" or data.startswith(EXIF_MARK, chunk.body)):
            return _orientation(data[chunk.body : chunk.stop].removeprefix(EXIF_MARK))
    return 1


def declared_bytes(tiff: bytes) -> int:
    """How many bytes a reader may copy for the entries of the first directory, all together."""
    return sum(min(_TYPE_BYTES.get(kind, 1) * count, len(tiff)) for _, kind, count, _ in _entries(tiff))


def _orientation(tiff: bytes) -> int:
    for tag, kind, count, value in _entries(tiff):
        if tag == _ORIENTATION and kind == _SHORT and count == 1 and 1 <= value <= 8:
            return value
    return 1


def _entries(tiff: bytes) -> Iterator[tuple[int, int, int, int]]:
    """(tag, type, count, its value as a SHORT) of each entry of the first directory, as far as there are bytes."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    if start + 2 > len(tiff):
        return
    (num,) = struct.unpack_from(order + "H", tiff, start)
    for at in range(start + 2, min(start + 2 + 12 * num, len(tiff) - 11), 12):
        yield struct.unpack_from(order + "HHIH", tiff, at)
