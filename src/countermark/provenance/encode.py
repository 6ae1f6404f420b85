"""The one place where pictures become files: PNG, JPEG, WebP and MP4 bytes.

What was made goes out through `release`; charts and a user's own media are encoded here too, unmarked.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.media import MAX_FILE_BYTES, SUFFIXES, Image, decode_image
from countermark.core.text import named
from countermark.core.video import MAX_DECODED_PIXELS, require_av

DEFAULT_QUALITY = 95
CRF = 12  # of H.264: benchmarks/video_marks.py says in how many frames the watermark is read at which
MAX_RATE_FPS = 240
_BT709, _SRGB, _LIMITED = 1, 13, 1  # code points of ITU-T H.273
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


def check_clip(rate_fps: float) -> None:
    """Raises UsageError for a rate that no clip can have, and where PyAV is missing."""
    if not 1 <= rate_fps <= MAX_RATE_FPS:
        raise UsageError(f"fps: {rate_fps:g} is out of range; give 1 to {MAX_RATE_FPS}")
    require_av()


def encode_video(frames: Iterable[Image], rate_fps: float, *, crf: int = CRF) -> bytes:
    """The bytes of an MP4 of H.264 (4:2:0, 8 bits, BT.709), frame by frame. Equal frames give equal bytes.

    Frames have one size, whose sides are even. crf: 0 to 51, of which less is better.
    Raises UsageError for what can't be asked, CountermarkError for a clip that is too long to be read back and for what
    x264 refuses, or its absence.
    """
    check_clip(rate_fps)
    import av

    try:
        return _encoded_video(frames, rate_fps, crf)
    except (av.FFmpegError, av.codec.codec.UnknownCodecError) as error:
        raise CountermarkError(
            f"PyAV cannot write this clip of H.264 ({type(error).__name__}); make smaller frames, or, where it lacks"
            " x264, take PyAV's own wheels: pip install 'countermark[video]'"
        ) from error


def _encoded_video(frames: Iterable[Image], rate_fps: float, crf: int) -> bytes:
    import av

    encoded, stream, num_pixels = io.BytesIO(), None, 0
    with av.open(encoded, "w", format="mp4") as container:
        for frame in frames:
            if stream is None:
                stream = _video_stream(container, frame, rate_fps, crf)
            if (frame.width, frame.height) != (stream.width, stream.height):
                raise UsageError(f"a frame of {frame.width} x {frame.height} px in a clip of another size")
            container.mux(stream.encode(_video_frame(frame)))
            num_pixels += frame.width * frame.height
            _check_length(encoded, num_pixels)
        if stream is None:
            raise UsageError("a clip needs a frame")
        container.mux(stream.encode(None))
    _check_length(encoded, num_pixels)
    return encoded.getvalue()


def _check_length(encoded: io.BytesIO, num_pixels: int) -> None:
    if encoded.tell() > MAX_FILE_BYTES or num_pixels > MAX_DECODED_PIXELS:
        raise CountermarkError(
            f"the clip is over the limit of {MAX_FILE_BYTES} bytes or {MAX_DECODED_PIXELS} pixels; shorten it"
        )


def _video_stream(container: Any, first: Image, rate_fps: float, crf: int) -> Any:
    if first.width % 2 or first.height % 2:
        raise UsageError(f"a clip of {first.width} x {first.height} px: its sides must be even")
    stream = container.add_stream("libx264", rate=Fraction(rate_fps).limit_denominator(1001))
    stream.width, stream.height, stream.pix_fmt = first.width, first.height, "yuv420p"
    stream.options = {"crf": str(crf)}
    context = stream.codec_context
    context.thread_count = 1  # x264's choices depend on how many there are
    context.colorspace = context.color_primaries = _BT709
    context.color_trc, context.color_range = _SRGB, _LIMITED
    return stream


def _video_frame(image: Image) -> Any:
    import av

    colour = np.ascontiguousarray(np.broadcast_to(image.samples, (image.height, image.width, 3)))
    frame = av.VideoFrame.from_ndarray(colour, format="rgb24")
    return frame.reformat(format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED)


def roundtrip(image: Image, format: str, *, quality: int = DEFAULT_QUALITY) -> Image:
    """`image` as a reader of the encoded file sees it, in memory: gives real and fake pictures the same coding."""
    return decode_image(encode(image, format, quality=quality))


def format_of(path: Path) -> str:
    """The format that a file name asks for. Raises UsageError for a suffix that can't be written."""
    suffix = Path(path).suffix.lower()
    if suffix not in _BY_SUFFIX:
        raise UsageError(f"{path}: a picture named so cannot be written; use one of {named(_BY_SUFFIX)}")
    return _BY_SUFFIX[suffix]
