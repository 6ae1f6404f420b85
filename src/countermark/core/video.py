"""Reading MP4 files, which are all taken for hostile.

A decoder's memory and time follow from the tables of the movie header, which a file of a few bytes may fill with any
numbers. They are read here first and held to limits; the decoders are FFmpeg's, four of them and no more.
"""

from __future__ import annotations

import importlib.util
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from countermark.core.bmff import Box, Misfit, boxes, inside, only
from countermark.core.errors import CountermarkError, UsageError
from countermark.core.media import MAX_PIXELS, MAX_SIDE, Image

MAX_TRACKS = 16
MAX_FRAMES = 200_000
MAX_SAMPLES = 10**6  # in a track of sound or text
MAX_DURATION_S = 6 * 3600.0
MAX_DECODED_PIXELS = 3 * 10**9  # some ten seconds of work; what of a clip lies behind them is not looked at
# Sample entries (14496-15, 14496-12 and the bindings of VP9 and AV1), and FFmpeg's decoders of them.
_CODECS = (b"avc1", b"avc3", b"hvc1", b"hev1", b"vp09", b"av01")
_DECODERS = "h264,hevc,vp9,libdav1d,av1"
_TABLES = {b"stts": 8, b"ctts": 8, b"stss": 4, b"stsc": 12, b"stco": 4, b"co64": 8}  # bytes an entry
_SIZES = (b"stsz", b"stz2")
# FFmpeg follows these wherever they lie, `trun` in fragments and `cmov` into a compressed header; but not in what it
# skips: media, and boxes that mean nothing to it in a file with one `moov`.
_FOLLOWED = (b"trak", *_SIZES, *_TABLES, b"trun", b"cmov")
_SKIPPED = (b"mdat", b"uuid", b"free")
_TEXTS = (b"udta", b"meta")  # titles, artists: no decoder needs them, and any word may stand there


@dataclass(frozen=True)
class Clip:
    """An MP4 file whose header holds to the limits, not decoded yet. `num_frames`: as the header says."""

    data: bytes = field(repr=False)
    width: int
    height: int
    num_frames: int
    rate_fps: float
    name: str


def require_av() -> None:
    """Raise UsageError where PyAV isn't installed: its wheels hold x264, under the GPL, so it is asked for apart."""
    if importlib.util.find_spec("av") is None:
        raise UsageError("video: MP4 files need PyAV; pip install 'countermark[video]'")


def open_clip(data: bytes, *, name: str = "clip") -> Clip:
    """The clip in the bytes of an MP4 file with one track of pictures, in one piece.

    Raises CountermarkError for damage, for fragmented files, for other codecs, and for what goes beyond MAX_TRACKS,
    MAX_FRAMES, MAX_SAMPLES, MAX_DURATION_S, MAX_PIXELS or MAX_SIDE.
    """
    try:
        return _opened(data, name)
    except Misfit as error:
        raise CountermarkError(f"{name}: damaged or unsupported MP4 ({error})") from error


def frames(clip: Clip, num: int | None = None) -> Iterator[Image]:
    """At most `num` frames spread evenly over the clip, the first among them; every frame if None.

    They end with MAX_DECODED_PIXELS. Raises CountermarkError for what cannot be decoded.
    """
    total = min(clip.num_frames, MAX_DECODED_PIXELS // (clip.width * clip.height))
    wanted = None if num is None or num >= total else {i * total // num for i in range(num)}
    shown = 0
    for index, frame in enumerate(islice(_decoded(clip), total)):
        if (frame.width, frame.height) != (clip.width, clip.height):
            raise CountermarkError(f"{clip.name}: a frame of {frame.width} x {frame.height} px, unlike its header")
        if wanted is None or index in wanted:
            yield Image(frame.to_ndarray(format="rgb24"))
            shown += 1
    if not shown:
        raise CountermarkError(f"{clip.name}: no frame can be decoded")


def _decoded(clip: Clip) -> Iterator[Any]:
    require_av()
    import av

    # Nothing but these bytes is opened; edit lists may repeat frames without end.
    options = {"protocol_whitelist": "", "codec_whitelist": _DECODERS, "ignore_editlist": "1"}
    limits = {"max_pixels": str(MAX_PIXELS), "threads": "1"}
    try:
        with av.open(
            io.BytesIO(clip.data),
            "r",
            format="mov",
            options=limits,
            container_options=options,
            metadata_errors="replace",
        ) as container:
            stream = container.streams.video[0]
            if stream.codec_context is None:  # its sample entry says one thing, the bytes in it another
                raise CountermarkError(f"{clip.name}: damaged or unsupported video (no decoder)")
            stream.codec_context.options = limits
            yield from container.decode(stream)
    except (av.FFmpegError, ValueError, IndexError, MemoryError) as error:
        raise CountermarkError(f"{clip.name}: damaged or unsupported video ({type(error).__name__})") from error


def _opened(data: bytes, name: str) -> Clip:
    data = _without_texts(data)
    top = inside(data, Box(b"", 0, 0, len(data)))
    movie = inside(data, only(top, b"moov"))
    if b"moof" in top or b"mvex" in movie:
        raise Misfit("it is in fragments")
    if len(movie.get(b"trak", [])) > MAX_TRACKS:
        raise Misfit(f"more than {MAX_TRACKS} tracks")
    found = [_pictures(data, box) for box in movie.get(b"trak", [])]
    _refuse_hidden(data, top, movie.get(b"trak", []))
    pictures = [track for track in found if track is not None]
    if len(pictures) != 1:
        raise Misfit(f"{len(pictures)} tracks of pictures where one is asked for")
    width, height, num_frames, duration_s = pictures[0]
    return Clip(data, width, height, num_frames, num_frames / duration_s, name)


def _without_texts(data: bytes) -> bytes:
    """`data` with zeros for the texts that describe file, movie and tracks, in which FFmpeg would look for boxes."""
    top = inside(data, Box(b"", 0, 0, len(data)))
    movie = inside(data, only(top, b"moov"))
    holders = [top, movie, *(inside(data, track) for track in movie.get(b"trak", [])[:MAX_TRACKS])]
    blank = bytearray(data)
    for text in (box for holder in holders for kind in _TEXTS for box in holder.get(kind, [])):
        blank[text.start + 4 : text.start + 8] = b"free"
        blank[text.body : text.stop] = bytes(text.stop - text.body)
    return bytes(blank)


def _refuse_hidden(data: bytes, top: dict[bytes, list[Box]], tracks: list[Box]) -> None:
    """Raise Misfit where the names of boxes that FFmpeg follows stand more often than boxes were held to the limits."""
    checked = Counter({b"trak": len(tracks)})
    for track in tracks:
        tables = _tables(data, track)
        checked.update({kind: len(tables.get(kind, [])) for kind in (*_SIZES, *_TABLES)})
    read = [box for kind, found in top.items() if kind not in _SKIPPED for box in found]
    for kind in _FOLLOWED:
        if sum(data.count(kind, box.start, box.stop) for box in read) > checked[kind]:
            raise Misfit(f"{kind.decode()!r} stands where no such box belongs")


def _tables(data: bytes, track: Box) -> dict[bytes, list[Box]]:
    """What lies in the table of samples of a track, by kind."""
    media = inside(data, only(inside(data, track), b"mdia"))
    return inside(data, only(inside(data, only(media, b"minf")), b"stbl"))


def _pictures(data: bytes, box: Box) -> tuple[int, int, int, float] | None:
    """Width, height, number of frames and seconds of a track of pictures; None for another, which is checked too."""
    media = inside(data, only(inside(data, box), b"mdia"))
    tables = _tables(data, box)
    num_samples, ticks = _samples(data, tables)
    if _number(data, only(media, b"hdlr"), 8) != int.from_bytes(b"vide", "big"):
        return None
    clock, description = only(media, b"mdhd"), only(tables, b"stsd")
    ticks_a_second = _number(data, clock, 20 if _number(data, clock, 0, 1) == 1 else 12)
    entries = boxes(data, description.body + 8, description.stop)
    if len(entries) != 1 or _number(data, description, 4) != 1 or entries[0].kind not in _CODECS:
        raise Misfit("its pictures are of several kinds, or not of H.264, H.265, VP9 or AV1")
    width, height = (_number(data, entries[0], at, 2) for at in (24, 26))
    duration_s = ticks / ticks_a_second if ticks_a_second else 0.0
    if not 1 <= num_samples <= MAX_FRAMES or not 0 < duration_s <= MAX_DURATION_S:
        raise Misfit(
            f"{num_samples} frames in {duration_s:g} seconds are none, or over the limits of {MAX_FRAMES} frames"
            f" and {MAX_DURATION_S:g} seconds"
        )
    if not 0 < width * height <= MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise Misfit(f"{width} x {height} pixels are none, or over the limit of {MAX_PIXELS} and {MAX_SIDE} a side")
    return width, height, num_samples, duration_s


def _samples(data: bytes, tables: dict[bytes, list[Box]]) -> tuple[int, float]:
    """How many samples a track has, and how many ticks of its clock they last."""
    offsets, _ = _runs(data, tables.get(b"ctts", []))
    num_timed, ticks = _runs(data, [only(tables, b"stts")])
    num_samples = _num_samples(data, tables)
    if max(offsets, num_timed, num_samples) > MAX_SAMPLES:
        raise Misfit(f"a track of more than {MAX_SAMPLES} samples")
    return num_samples, ticks


def _num_samples(data: bytes, tables: dict[bytes, list[Box]]) -> int:
    """What `stsz` or `stz2` says, whose sizes must be there (14496-12, 8.7.3), as must the entries of other tables."""
    for kind, entry_bytes in _TABLES.items():
        for table in tables.get(kind, []):
            _require(table, 8 + entry_bytes * _number(data, table, 4))
    found = [box for kind in _SIZES for box in tables.get(kind, [])]
    if len(found) != 1:
        raise Misfit("the sizes of samples are given twice, or not at all")
    sizes = found[0]
    num = _number(data, sizes, 8)
    bits = _number(data, sizes, 7, 1) if sizes.kind == b"stz2" else 0 if _number(data, sizes, 4) else 32
    _require(sizes, 12 + num * bits // 8)
    return num


def _runs(data: bytes, tables: list[Box]) -> tuple[int, float]:
    """Of the pairs (how many samples, how long each) in `stts` or `ctts`: how many samples, how long all of them."""
    num, length = 0, 0.0
    for table in tables:
        entries = _number(data, table, 4)
        _require(table, 8 + 8 * entries)
        pairs = np.frombuffer(data, ">u4", 2 * entries, table.body + 8).reshape(-1, 2).astype(np.float64)
        num, length = num + int(pairs[:, 0].sum()), length + float(pairs.prod(1).sum())
    return num, length


def _number(data: bytes, box: Box, at: int, num_bytes: int = 4) -> int:
    """The whole number `at` bytes behind the head of `box`."""
    _require(box, at + num_bytes)
    return int.from_bytes(data[box.body + at : box.body + at + num_bytes], "big")


def _require(box: Box, num_bytes: int) -> None:
    if box.body + num_bytes > box.stop:
        raise Misfit(f"box {box.kind.decode('latin-1')!r} is cut short")
