"""Media in memory, and the reading of files from outside, which are all taken for hostile."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from countermark.core.chunks import Excessive
from countermark.core.effort import check_effort
from countermark.core.errors import CountermarkError
from countermark.core.exif import orientation
from countermark.core.files import read_bounded

if TYPE_CHECKING:
    import PIL.Image

MAX_FILE_BYTES = 256 * 2**20
MAX_PIXELS = 50 * 10**6
MAX_SIDE = 32768

# File signatures, so that the content decides and not the name.
_SIGNATURES = ((b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpeg"))
SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
# Major brands of video files; pictures (HEIF, AVIF) are built of the same boxes.
_VIDEO_BRANDS = (b"isom", b"iso2", b"iso4", b"iso5", b"iso6", b"mp41", b"mp42", b"avc1", b"M4V ")


@dataclass(frozen=True)
class Image:
    """A picture: `samples` is uint8 [H,W,C] with C = 1 (grey) or 3 (sRGB)."""

    samples: np.ndarray

    def __post_init__(self) -> None:
        if self.samples.dtype != np.uint8 or self.samples.ndim != 3 or self.samples.shape[2] not in (1, 3):
            raise ValueError(f"samples must be uint8 [H,W,1 or 3], not {self.samples.dtype} {self.samples.shape}")

    @property
    def height(self) -> int:
        return int(self.samples.shape[0])

    @property
    def width(self) -> int:
        return int(self.samples.shape[1])

    @property
    def channels(self) -> int:
        return int(self.samples.shape[2])


@dataclass(frozen=True)
class Video:
    """A clip: `samples` is uint8 [T,H,W,C]; `rate_fps` frames a second."""

    samples: np.ndarray
    rate_fps: float


@dataclass(frozen=True)
class Speech:
    """Sound: `samples` is float32 [1,L] in [-1,1]; `sample_rate_hz` samples a second."""

    samples: np.ndarray
    sample_rate_hz: int


def sniff(data: bytes) -> str | None:
    """The container that the first bytes announce: 'png', 'jpeg', 'webp', 'mp4' or None."""
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp" and data[8:12] in _VIDEO_BRANDS:
        return "mp4"
    return None


def read_image(path: Path) -> Image:
    """Read a PNG, JPEG or WebP file. Raises CountermarkError as `decode_image` does, with the path."""
    return decode_image(read_bounded(Path(path), MAX_FILE_BYTES), name=str(path))


def image_size(data: bytes, *, name: str = "picture") -> tuple[int, int]:
    """(width, height) in pixels that the header declares, decoding nothing. Raises as `decode_image` does."""
    with _opened(data, name) as (picture, turned):
        width, height = picture.size
    return (height, width) if turned >= 5 else (width, height)


def decode_image(data: bytes, *, name: str = "picture") -> Image:
    """Decode PNG, JPEG or WebP bytes to grey or sRGB; transparency is laid on white; the camera's rotation is applied.

    The declared size and the effort of decoding are checked before any pixel is decoded. Raises CountermarkError for
    other formats, for sizes over MAX_PIXELS or MAX_SIDE, for files that only keep a decoder busy (see effort.py), and
    for damaged or truncated data.
    """
    with _opened(data, name) as (picture, turned):
        picture.load()
        return Image(np.ascontiguousarray(_upright(_to_array(picture), turned)))


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[tuple[PIL.Image.Image, int]]:
    """The picture with its header read, its size and effort checked, and its orientation (see exif.py).

    Whatever the decoder raises becomes one line.
    """
    import PIL.Image

    container = sniff(data)
    if container not in SUFFIXES:
        raise CountermarkError(f"{name}: not a PNG, JPEG or WebP picture")
    try:
        check_effort(data, container)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PIL.Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as picture:
                _check_size(picture.size, name)
                yield picture, orientation(data, container)
    except CountermarkError:
        raise
    except Excessive as error:
        raise CountermarkError(f"{name}: {error}, which is over the limit") from error
    except Exception as error:  # every decoder has its own family of errors for damaged data
        raise CountermarkError(f"{name}: damaged or unsupported picture ({type(error).__name__})") from error


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise CountermarkError(
            f"{name}: {width} x {height} pixels is over the limit of {MAX_PIXELS} pixels and {MAX_SIDE} a side"
        )


def _to_array(picture: PIL.Image.Image) -> np.ndarray:
    import PIL.Image

    if picture.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips instead of scaling
        deep = np.clip(np.asarray(picture), 0, 65535).astype(np.uint32)
        return ((deep * 255 + 32767) // 65535).astype(np.uint8)[..., None]
    if picture.mode in ("RGBA", "LA", "PA", "P", "RGBa", "La") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = PIL.Image.new("RGBA", picture.size, "white")
        picture = PIL.Image.alpha_composite(white, picture).convert("RGB")
    if picture.mode in ("L", "1"):
        return np.asarray(picture.convert("L"))[..., None]
    return np.asarray(picture.convert("RGB"))


def _upright(samples: np.ndarray, turned: int) -> np.ndarray:
    """`samples` [H,W,C] as the camera meant them: orientations 2, 4, 5 and 7 are mirrored, 5 to 8 lie on their side."""
    if turned >= 5:
        samples = samples.transpose(1, 0, 2)
    if turned in (3, 4, 7, 8):
        samples = samples[::-1]
    if turned in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return samples
