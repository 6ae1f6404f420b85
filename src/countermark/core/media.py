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

from countermark.core.errors import CountermarkError
from countermark.core.files import read_bounded

if TYPE_CHECKING:
    import PIL.Image

MAX_FILE_BYTES = 256 * 2**20
MAX_PIXELS = 64 * 10**6
MAX_SIDE = 32768

# File signatures, so that the content decides and not the name.
_SIGNATURES = ((b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpeg"))
SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
_EXIF_ORIENTATION = 0x0112
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


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
    """The container that the first bytes announce: 'png', 'jpeg', 'webp' or None."""
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return None


def read_image(path: Path) -> Image:
    """Read a PNG, JPEG or WebP file. Raises CountermarkError as `decode_image` does, with the path."""
    return decode_image(read_bounded(Path(path), MAX_FILE_BYTES), name=str(path))


def image_size(data: bytes, *, name: str = "picture") -> tuple[int, int]:
    """(width, height) in pixels that the header declares, decoding nothing. Raises as `decode_image` does."""
    with _opened(data, name) as picture:
        swapped = picture.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
        width, height = picture.size
    return (height, width) if swapped else (width, height)


def decode_image(data: bytes, *, name: str = "picture") -> Image:
    """Decode PNG, JPEG or WebP bytes to grey or sRGB; transparency is laid on white; the camera's rotation is applied.

    The declared size is checked before any pixel is decoded. Raises CountermarkError for other formats, for sizes over
    MAX_PIXELS or MAX_SIDE, and for damaged or truncated data.
    """
    import PIL.ImageOps

    with _opened(data, name) as picture:
        picture.load()
        return Image(_to_array(PIL.ImageOps.exif_transpose(picture)))


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[PIL.Image.Image]:
    """The picture with its header read and its size checked; whatever the decoder raises becomes one line."""
    import PIL.Image

    if sniff(data) is None:
        raise CountermarkError(f"{name}: not a PNG, JPEG or WebP picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PIL.Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as picture:
                _check_size(picture.size, name)
                yield picture
    except CountermarkError:
        raise
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
        return (np.asarray(picture, dtype=np.float64) / 257).round().clip(0, 255).astype(np.uint8)[..., None]
    if picture.mode in ("RGBA", "LA", "PA", "P", "RGBa", "La") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = PIL.Image.new("RGBA", picture.size, "white")
        picture = PIL.Image.alpha_composite(white, picture).convert("RGB")
    if picture.mode in ("L", "1"):
        return np.asarray(picture.convert("L"))[..., None]
    return np.asarray(picture.convert("RGB"))
