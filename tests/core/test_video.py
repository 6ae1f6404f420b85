"""Reading MP4 files: what was encoded comes back, and what a file merely declares costs nothing."""

import random
import struct
import sys
import time
from contextlib import suppress

import numpy as np
import pytest

from countermark.core import video
from countermark.core.bmff import boxes
from countermark.core.errors import CountermarkError, UsageError
from countermark.core.media import decode_image, sniff
from countermark.core.video import frames, open_clip
from tests.clips import box, clip, foreign, joined, mp4, patched, top

TABLES = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
SIZES = box(b"stsz", struct.pack(">III", 0, 1, 10**7))  # as FFmpeg sees them, ten million samples of a byte


def put(data: bytes, path: tuple[bytes, ...], extra: bytes) -> bytes:
    """`data` with the box `extra` as the last one in the box at `path`; the movie header is behind the media."""
    start, stop, holders = 0, len(data), []
    for kind in path:
        holder = next(found for found in boxes(data, start, stop) if found.kind == kind)
        start, stop = holder.body, holder.stop
        holders.append(holder)
    grown = bytearray(data[:stop] + extra + data[stop:])
    for holder in holders:
        grown[holder.start : holder.start + 4] = struct.pack(">I", holder.stop - holder.start + len(extra))
    return bytes(grown)


def track() -> bytes:
    """A track of ten million samples."""
    movie = top(patched(mp4(), b"stsz", 4, struct.pack(">II", 1, 10**7)))[-1][1]
    return next(movie[found.start : found.stop] for found in boxes(movie, 8, len(movie)) if found.kind == b"trak")


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def test_what_was_encoded_is_read() -> None:
    data = mp4(6, 96)
    opened = open_clip(data)
    assert (opened.width, opened.height, opened.num_frames, opened.rate_fps) == (96, 96, 6, 25.0)
    read = list(frames(opened))
    assert len(read) == 6
    assert min(psnr_db(a.samples, b.samples) for a, b in zip(read, clip(6, 96, 96), strict=True)) > 34
    assert sniff(data) == "mp4"


def test_some_frames_are_spread_evenly_from_the_first() -> None:
    opened = open_clip(mp4(12))
    every = [frame.samples for frame in frames(opened)]
    for num, wanted in ((1, [0]), (3, [0, 4, 8]), (5, [0, 2, 4, 7, 9]), (12, range(12)), (99, range(12))):
        some = [frame.samples for frame in frames(opened, num)]
        assert len(some) == len(wanted)
        assert all(np.array_equal(a, every[i]) for a, i in zip(some, wanted, strict=True))


def test_decoding_ends_with_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_clip(mp4(12))
    monkeypatch.setattr(video, "MAX_DECODED_PIXELS", 6 * 64 * 64)
    assert len(list(frames(opened))) == 6
    every = [frame.samples for frame in frames(opened)]
    assert [np.array_equal(a.samples, every[i]) for a, i in zip(frames(opened, 3), (0, 2, 4), strict=True)] == [
        True
    ] * 3


@pytest.mark.parametrize("codec", ["libx265", "libsvtav1"])
def test_other_codecs_are_read(codec: str) -> None:
    data = foreign(codec)
    assert len(list(frames(open_clip(data)))) == 6


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: foreign("mpeg4"), "not of H.264"),
        (lambda: foreign("libx264", movflags="frag_keyframe+empty_moov"), "in fragments"),
        (lambda: foreign("libx264", num_tracks=2), "2 tracks of pictures"),
        (lambda: joined(top(mp4())[:-1]), "0 boxes 'moov'"),
        (lambda: mp4()[:-1], "longer than what holds it"),
        (lambda: mp4() + b"\0" * 8, "no length"),
        (lambda: mp4() + top(mp4())[-1][1], "2 boxes 'moov'"),
        (lambda: b"\0\0\0\x10ftypisom\0\0\0\0" + box(b"moov", b""), "0 tracks of pictures"),
        (lambda: b"\0\0\0\x10ftypisom\0\0\0\0" + box(b"moov", box(b"trak", b"") * 17), "more than 16 tracks"),
        (lambda: patched(mp4(), b"avc1", 24, struct.pack(">HH", 40000, 20)), "over the limit of"),
        (lambda: patched(mp4(), b"avc1", 24, struct.pack(">HH", 20000, 20000)), "over the limit of"),
        (lambda: patched(mp4(), b"avc1", 24, struct.pack(">HH", 0, 20)), "none"),
        (lambda: patched(mp4(), b"stsz", 4, struct.pack(">II", 9, 2**32 - 1)), "more than 1000000 samples"),
        (lambda: patched(mp4(), b"stsz", 4, struct.pack(">II", 9, 10**6)), "over the limits of 200000 frames"),
        (lambda: patched(mp4(), b"stsz", 4, struct.pack(">II", 9, 0)), "none"),
        (lambda: patched(mp4(), b"stsz", 8, struct.pack(">I", 100)), "'stsz' is cut short"),
        (lambda: patched(mp4(), b"stts", 8, struct.pack(">II", 2**32 - 1, 1)), "more than 1000000 samples"),
        (lambda: patched(mp4(), b"stts", 8, struct.pack(">II", 6, 2**32 - 1)), "seconds are none, or over"),
        (lambda: patched(mp4(), b"stts", 8, struct.pack(">II", 6, 0)), "none"),
        (lambda: patched(mp4(), b"stts", 4, struct.pack(">I", 2**32 - 1)), "'stts' is cut short"),
        (lambda: patched(mp4(), b"stsc", 4, struct.pack(">I", 2**32 - 1)), "'stsc' is cut short"),
        (lambda: patched(mp4(), b"stco", 4, struct.pack(">I", 2**32 - 1)), "'stco' is cut short"),
        (lambda: patched(mp4(), b"ctts", 4, struct.pack(">I", 2**32 - 1)), "'ctts' is cut short"),
        (lambda: patched(mp4(), b"stsd", 4, struct.pack(">I", 0)), "of several kinds"),
        (lambda: patched(mp4(), b"mdhd", 12, struct.pack(">I", 0)), "none"),
        (lambda: mp4().replace(b"vide", b"soun"), "0 tracks of pictures"),
        # Boxes that FFmpeg follows, and the limits would not see.
        (lambda: put(mp4(), TABLES, box(b"udta", SIZES)), "'stsz' stands where no such box belongs"),
        (lambda: put(mp4(), TABLES[:1], SIZES), "'stsz' stands where no such box belongs"),
        (lambda: put(patched(mp4(), b"stsz", -4, b"stz2\0\0\0\0\0\0\0\x10"), TABLES, SIZES), "given twice"),
        (lambda: mp4().replace(b"stsz", b"stsy"), "given twice, or not at all"),
        (lambda: mp4() + track(), "'trak' stands where no such box belongs"),
        (lambda: put(mp4(), TABLES[:1], box(b"trun", bytes(8))), "'trun' stands where"),
        (lambda: put(mp4(), TABLES[:1], box(b"cmov", bytes(8))), "'cmov' stands where"),
    ],
)
def test_what_a_header_must_not_say_is_one_line(data, message: str) -> None:
    start = time.process_time()
    with pytest.raises(CountermarkError, match=message) as caught:
        list(frames(open_clip(data(), name="a.mp4")))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("a.mp4: ")
    assert time.process_time() - start < 3


def test_names_of_boxes_in_what_is_skipped_are_no_damage() -> None:
    data = mp4() + box(b"uuid", bytes(16) + SIZES) + box(b"free", SIZES)
    assert len(list(frames(open_clip(data)))) == 6


@pytest.mark.parametrize("depth", [1, 2])
def test_words_and_boxes_in_texts_reach_no_decoder(depth: int) -> None:
    title, artist = box(b"\xa9nam", b"\0\x11\0\0an elephant trunk"), box(b"\xa9ART", b"\0\x08\0\0Petrakis")
    words = box(b"udta", title + artist + SIZES)
    start = time.process_time()
    assert len(list(frames(open_clip(put(mp4(), TABLES[:depth], words))))) == 6
    assert time.process_time() - start < 3


def test_text_of_any_coding_is_no_damage() -> None:
    data = foreign("libx264")
    assert b"Lavf" in data
    assert len(list(frames(open_clip(data.replace(b"Lavf", b"\xff\xfe\xfd\xfc"))))) == 6


def test_a_picture_larger_than_its_header_says_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    small = patched(mp4(), b"avc1", 24, struct.pack(">HH", 16, 16))
    opened = open_clip(small)
    with pytest.raises(CountermarkError, match="a frame of 64 x 64 px, unlike its header"):
        list(frames(opened))
    monkeypatch.setattr(video, "MAX_PIXELS", 1000)  # the decoder's own limit, before it takes memory
    with pytest.raises(CountermarkError, match="damaged or unsupported video"):
        list(frames(opened))


def test_edit_lists_repeat_nothing() -> None:
    """A list of edits that shows the clip a thousand times is not followed."""
    data = mp4()
    kind, movie = top(data)[-1]
    place = movie.index(b"edts") - 4
    length = int.from_bytes(movie[place : place + 4], "big")
    edits = struct.pack(">II", 0, 1000) + struct.pack(">IIHH", 240, 0, 1, 0) * 1000
    edited = box(b"edts", box(b"elst", edits))
    grown = bytearray(movie[:place] + edited + movie[place + length :])
    for container in (b"moov", b"trak"):
        at = grown.index(container) - 4
        grown[at : at + 4] = (int.from_bytes(grown[at : at + 4], "big") + len(edited) - length).to_bytes(4, "big")
    data = joined([*top(data)[:-1], (kind, bytes(grown))])
    assert len(list(frames(open_clip(data)))) == 6


def test_broken_clips_end_soon_in_one_line_and_quietly(capfd: pytest.CaptureFixture) -> None:
    data, rng = mp4(8), random.Random(0)
    start = time.process_time()
    for _ in range(150):
        broken = bytearray(data[: rng.choice([len(data), rng.randrange(len(data))])])
        for _ in range(rng.choice([1, 3, 30])):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        with suppress(CountermarkError):  # nothing else may come, and the frames that were not hurt may be read
            assert len(list(frames(open_clip(bytes(broken))))) <= 20
    assert time.process_time() - start < 60
    assert capfd.readouterr() == ("", "")


def test_other_files_of_boxes_are_no_clips() -> None:
    for brand in (b"heic", b"mif1", b"avif", b"qt  "):
        assert sniff(b"\0\0\0\x18ftyp" + brand + bytes(12)) is None
    with pytest.raises(CountermarkError, match="not a PNG, JPEG or WebP picture"):
        decode_image(mp4())


def test_without_pyav_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_clip(mp4())
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UsageError, match=r"countermark\[video\]"):
        next(frames(opened))
