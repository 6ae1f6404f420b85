"""Files that are small and cost a decoder minutes or gigabytes, refused before they are decoded.

Decoders walk PNG chunks, JPEG segments and the bytes between them one by one; join the EXIF segments of a JPEG, and
copy every value that its directory points to; and visit every block of a JPEG once a scan, of which a few bytes make
one.
"""

from __future__ import annotations

from countermark.core.chunks import START_OF_SCAN, Chunk, Excessive, chunks
from countermark.core.exif import EXIF_MARK, declared_bytes

MAX_SCANS = 100
MAX_SCANNED_PIXELS = 10**9  # pixels times scans: some seconds of work; a camera's progressive JPEG has about ten scans
MAX_JPEG_HEAD_BYTES = 16 * 2**20  # everything before the first scan: joining segments takes time in its square
MAX_EXIF_BYTES = 64 * 2**20  # what the entries of its directories point to, all together
_MPF_MARK = b"MPF\0"  # CIPA DC-007: a directory like EXIF's, of more pictures in the file


def check_effort(data: bytes, container: str) -> None:
    """Raise Excessive for a file ('png', 'jpeg' or 'webp') that would keep a decoder busy: call it before decoding."""
    found = list(chunks(data, container))
    if container == "jpeg":
        _check_scans(data, found)
        _check_head(data, found)


def _check_scans(data: bytes, found: list[Chunk]) -> None:
    scans = sum(chunk.kind[0] == START_OF_SCAN for chunk in found)
    frames = [data[chunk.body + 1 : chunk.body + 5] for chunk in found if _is_frame(chunk.kind[0])]
    pixels = max((int.from_bytes(f[:2], "big") * int.from_bytes(f[2:], "big") for f in frames), default=0)
    if scans > MAX_SCANS or scans * pixels > MAX_SCANNED_PIXELS:
        raise Excessive(f"{scans} JPEG scans, more than {MAX_SCANS} or too many for so large a picture")


def _is_frame(marker: int) -> bool:
    return 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)


def _check_head(data: bytes, found: list[Chunk]) -> None:
    head_stop = next((chunk.body for chunk in found if chunk.kind[0] == START_OF_SCAN), len(data))
    if head_stop > MAX_JPEG_HEAD_BYTES:
        raise Excessive(f"more than {MAX_JPEG_HEAD_BYTES} bytes before the picture")
    exif = b"".join(data[c.body + len(EXIF_MARK) : c.stop] for c in found if data.startswith(EXIF_MARK, c.body))
    previews = [data[c.body + len(_MPF_MARK) : c.stop] for c in found if data.startswith(_MPF_MARK, c.body)]
    if sum(map(declared_bytes, (exif, *previews))) > MAX_EXIF_BYTES:
        raise Excessive(f"EXIF data of more than {MAX_EXIF_BYTES} bytes")
