import io
import struct
import time

import numpy as np
import PIL.Image
import pytest

from countermark.core.chunks import MAX_STEPS, Excessive
from countermark.core.effort import MAX_EXIF_BYTES, MAX_JPEG_HEAD_BYTES, MAX_SCANS, check_effort
from countermark.core.errors import CountermarkError
from countermark.core.exif import declared_bytes, orientation
from countermark.core.media import decode_image, image_size


def encoded(format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    PIL.Image.fromarray(np.arange(24 * 16 * 3, dtype=np.uint8).reshape(16, 24, 3)).save(stream, format, **options)
    return stream.getvalue()


PNG, JPEG, WEBP = (encoded(format) for format in ("PNG", "JPEG", "WEBP"))


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def progressive(side: int, scans: int) -> bytes:
    frame = segment(0xC2, b"\x08" + struct.pack(">HH", side, side) + b"\1\1\x11\0")
    return b"\xff\xd8" + frame + (segment(0xDA, b"\1\1\0\0\0\1") + b"\0") * scans + b"\xff\xd9"


def exif(*entries: tuple[int, int, int, int], order: str = ">") -> bytes:
    head = {">": b"MM\0*", "<": b"II*\0"}[order] + struct.pack(order + "IH", 8, len(entries))
    return head + b"".join(struct.pack(order + "HHIHH", *entry, 0) for entry in entries) + bytes(4)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + b"\xff" * 4_000_000,
        JPEG[:2] + b"\xff" * 4_000_000 + JPEG[2:],
        JPEG[:20] + b"\0" * 4_000_000 + JPEG[20:],
        JPEG[:2] + segment(0xFE, b"") * (MAX_STEPS + 1) + JPEG[2:],
        JPEG[:2] + segment(0xE1, b"Exif\0\0" + bytes(65_000)) * (MAX_JPEG_HEAD_BYTES // 65_000 + 1) + JPEG[2:],
        JPEG[:2] + segment(0xE1, b"Exif\0\0" + exif(*[(1, 1, 60_000, 8)] * 5000)) + JPEG[2:],
        JPEG[:2] + segment(0xE2, b"MPF\0" + exif(*[(1, 1, 60_000, 8)] * 5000)) + JPEG[2:],
        PNG[:33] + b"\0\0\0\0tEXt\0\0\0\0" * (MAX_STEPS + 1) + PNG[33:],
        WEBP + b"JUNK\0\0\0\0" * (MAX_STEPS + 1),
        progressive(64, MAX_SCANS + 1),
        progressive(7000, 30),
    ],
)
def test_files_that_keep_a_decoder_busy_are_refused_at_once(data: bytes) -> None:
    start = time.process_time()
    for read in (decode_image, image_size):
        with pytest.raises(CountermarkError, match="over the limit"):
            read(data, name="x")
    assert time.process_time() - start < 3


def test_honest_files_pass() -> None:
    check_effort(progressive(64, MAX_SCANS), "jpeg")
    check_effort(progressive(7000, 12), "jpeg")
    check_effort(encoded("JPEG", progressive=True), "jpeg")
    # A camera's clip after the picture may hold any bytes, those of a start of scan too.
    check_effort(JPEG + b"\xff\xda" * 1000, "jpeg")
    check_effort(JPEG[:2] + b"\xff" * 1000 + JPEG[2:], "jpeg")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("turned", range(10))
def test_orientation_is_what_pillow_reads(format: str, turned: int) -> None:
    import PIL.ImageOps

    about = PIL.Image.Exif()
    about[0x010F], about[0x0112] = "maker", turned
    data = encoded(format, exif=about, **({"lossless": True} if format == "WEBP" else {}))
    assert orientation(data, format.lower()) == (turned if 1 <= turned <= 8 else 1)
    with PIL.Image.open(io.BytesIO(data)) as picture:
        expected = np.asarray(PIL.ImageOps.exif_transpose(picture))
    assert np.array_equal(decode_image(data).samples, expected)
    assert image_size(data) == expected.shape[1::-1]


@pytest.mark.parametrize("order", "<>")
def test_a_directory_is_read_as_far_as_there_are_bytes(order: str) -> None:
    sound = exif((0x0112, 3, 1, 6), order=order)
    assert orientation(JPEG[:2] + segment(0xE1, b"Exif\0\0" + sound) + JPEG[2:], "jpeg") == 6
    assert declared_bytes(sound) == 2
    for size in range(len(sound)):
        assert declared_bytes(sound[:size]) in (0, 2)
    assert declared_bytes(exif(*[(1, 1, 2**32 - 1, 0)] * 3, order=order)) == 3 * (10 + 36 + 4)
    assert declared_bytes(b"II*\0\xff\xff\xff\xff") == 0


def test_the_limit_on_exif_is_of_what_it_makes_a_reader_copy() -> None:
    once = exif((1, 7, 60_000, 0)) + bytes(60_000)
    check_effort(JPEG[:2] + segment(0xE1, b"Exif\0\0" + once) + JPEG[2:], "jpeg")
    many = exif(*[(i, 7, 50_000, 0) for i in range(MAX_EXIF_BYTES // 50_000 + 1)]) + bytes(45_000)
    with pytest.raises(Excessive, match="EXIF"):
        check_effort(JPEG[:2] + segment(0xE1, b"Exif\0\0" + many) + JPEG[2:], "jpeg")
