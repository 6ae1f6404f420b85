"""Clips for tests: made from formulas, and MP4 files taken apart and put together again."""

import io
import struct
from collections.abc import Iterator

import av
import numpy as np

from countermark.core.bmff import boxes
from countermark.core.media import Image
from countermark.provenance.encode import encode_video


def clip(num: int = 6, height: int = 64, width: int = 64, channels: int = 3) -> Iterator[Image]:
    """Moving waves."""
    y, x = np.mgrid[0:height, 0:width] / 64
    for t in range(num):
        waves = [127 + 90 * np.sin(6 * x + 4 * y * channel + 0.2 * t) for channel in range(channels)]
        yield Image(np.stack(waves, axis=2).clip(0, 255).astype(np.uint8))


def mp4(num: int = 6, side: int = 64) -> bytes:
    return encode_video(clip(num, side, side), 25)


def top(data: bytes) -> list[tuple[bytes, bytes]]:
    """The boxes at the top: kind, whole box."""
    return [(box.kind, data[box.start : box.stop]) for box in boxes(data, 0, len(data))]


def joined(parts: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(part for _, part in parts)


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + kind + body


def patched(data: bytes, kind: bytes, at: int, value: bytes) -> bytes:
    """`data` with `value` written `at` bytes behind the head of its last box of `kind`."""
    place = data.rindex(kind) + 4 + at
    return data[:place] + value + data[place + len(value) :]


def foreign(codec: str, *, num_tracks: int = 1, container: str = "mp4", **options: str) -> bytes:
    """An MP4 file as others may write it."""
    out = io.BytesIO()
    with av.open(out, "w", format=container, options=options) as file:
        streams = [file.add_stream(codec, rate=25) for _ in range(num_tracks)]
        for stream in streams:
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
        for frame in clip():
            for stream in streams:
                picture = av.VideoFrame.from_ndarray(frame.samples, format="rgb24").reformat(format="yuv420p")
                file.mux(stream.encode(picture))
        for stream in streams:
            file.mux(stream.encode(None))
    return out.getvalue()
