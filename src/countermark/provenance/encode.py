"""The one place where pictures become files: PNG, JPEG and WebP bytes.

What was made goes out through `release`; charts and a user's own media are encoded here too, unmarked.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from countermark.core.errors import UsageError
from countermark.core.media import SUFFIXES, Image, decode_image
from countermark.core.text import named

DEFAULT_QUALITY = 95
_BY_SUFFIX = {**{suffix: name for name, suffix in SUFFIXES.items()}, ".jpeg": "jpeg"}


def encode(image: Image, format: str, *, quality: int = DEFAULT_QUALITY) -> bytes:
    """The bytes of `image` as 'png', 'jpeg' (4:2:0) or 'webp' (lossy). Equal pictures give equal bytes.

    quality: 1 to 100 for JPEG and WebP; PNG is lossless. Raises UsageError for another format or quality.
    """
    import PIL.Image

    if format not in SUFFIXES:
        raise UsageError(f"format {format!r} cannot be written; choose one of {named(SUFFIXES)}")
    if not 1 <= quality <= 100:
        raise UsageError(f"quality {quality} is out of range; give 1 to 100")
    samples = image.samples[..., 0] if image.channels == 1 else image.samples
    options: dict[str, Any] = {} if format == "png" else {"quality": quality}
    encoded = io.BytesIO()
    PIL.Image.fromarray(samples).save(encoded, format, **options)
    return encoded.getvalue()


def roundtrip(image: Image, format: str, *, quality: int = DEFAULT_QUALITY) -> Image:
    """`image` as a reader of the encoded file sees it, in memory: gives real and fake pictures the same coding."""
    return decode_image(encode(image, format, quality=quality))


def format_of(path: Path) -> str:
    """The format that a file name asks for. Raises UsageError for a suffix that can't be written."""
    suffix = Path(path).suffix.lower()
    if suffix not in _BY_SUFFIX:
        raise UsageError(f"{path}: a picture named so cannot be written; use one of {named(_BY_SUFFIX)}")
    return _BY_SUFFIX[suffix]
