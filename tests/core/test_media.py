import io
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.core.errors import CountermarkError
from countermark.core.media import Image, decode_image, image_size, read_image, sniff


def encoded(samples: np.ndarray, format: str, mode: str | None = None, **options: object) -> bytes:
    stream = io.BytesIO()
    PIL.Image.fromarray(samples, mode).save(stream, format, **options) if mode else PIL.Image.fromarray(samples).save(
        stream, format, **options
    )
    return stream.getvalue()


RAMP = np.arange(6 * 5 * 3, dtype=np.uint8).reshape(6, 5, 3)


@pytest.mark.parametrize(("format", "lossless"), [("PNG", True), ("WEBP", True), ("JPEG", False)])
def test_reads_each_format_by_content(format: str, lossless: bool, tmp_path: Path) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    path = tmp_path / "wrong.extension"
    path.write_bytes(encoded(RAMP, format, **options))
    image = read_image(path)
    assert image.samples.shape == (6, 5, 3)
    assert sniff(path.read_bytes()) == format.lower()
    if lossless:
        assert np.array_equal(image.samples, RAMP)


def test_grey_stays_grey_and_sixteen_bits_are_scaled() -> None:
    assert decode_image(encoded(RAMP[..., 0], "PNG")).channels == 1
    deep = np.array([[0, 257 * 128, 65535]], np.uint16)
    assert decode_image(encoded(deep, "PNG")).samples.ravel().tolist() == [0, 128, 255]


def test_transparency_is_laid_on_white() -> None:
    clear = np.zeros((2, 2, 4), np.uint8)
    assert decode_image(encoded(clear, "PNG")).samples.tolist() == [[[255] * 3] * 2] * 2


def test_the_camera_s_rotation_is_applied_to_pixels_and_size() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees
    data = encoded(RAMP, "PNG", exif=exif)
    assert image_size(data) == (6, 5)
    assert decode_image(data).samples.shape == (5, 6, 3)
    assert np.array_equal(decode_image(data).samples, np.rot90(RAMP, -1))


def huge_png(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    rest = b"IDAT" + zlib.compress(b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (chunk, rest, b"IEND")
    )


@pytest.mark.parametrize("size", [(10_000, 10_000), (100_000, 100_000), (40_000, 10), (2**31 - 1, 1)])
def test_a_huge_declared_size_is_refused_before_decoding(size: tuple[int, int]) -> None:
    with pytest.raises(CountermarkError, match=r"limit|damaged"):
        decode_image(huge_png(*size), name="bomb")
    with pytest.raises(CountermarkError, match=r"limit|damaged"):
        image_size(huge_png(*size), name="bomb")


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP"]), st.randoms(use_true_random=False), st.booleans())
def test_damaged_files_decode_or_say_so_in_one_line(format: str, random: object, cut: bool) -> None:
    data = bytearray(encoded(RAMP, format))
    if cut:
        data = data[: random.randrange(len(data))]  # type: ignore[attr-defined]
    else:
        for _ in range(3):
            data[random.randrange(len(data))] ^= random.randrange(1, 256)  # type: ignore[attr-defined]
    try:
        assert isinstance(decode_image(bytes(data), name="x"), Image)
    except CountermarkError as error:
        message = str(error)
    else:
        return
    assert message.startswith("x: ")
    assert "\n" not in message


def test_an_image_refuses_other_arrays() -> None:
    with pytest.raises(ValueError, match="uint8"):
        Image(np.zeros((2, 2, 3), np.float32))
