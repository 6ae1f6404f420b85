import os
import random
import time

import numpy as np
import pytest

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.media import Image
from countermark.core.video import frames, open_clip
from countermark.provenance import encode, keys, payload, registry, release, watermark
from countermark.provenance.credentials import MADE, Credentials
from countermark.provenance.encode import encode_video
from countermark.provenance.release import Origin, release_video
from countermark.provenance.verify import MAX_READ_FRAMES, verify
from tests.clips import clip, joined, mp4, top

ORIGIN = Origin("made", "dcgan:tiny", run="run-1", seed=(7, 8))


@pytest.mark.parametrize(("side", "channels"), [(64, 3), (28, 1), (128, 3)])
def test_every_mark_is_on_the_clip(tmp_path, side, channels):
    released = release_video(clip(5, side, side, channels), 25, tmp_path / "a.mp4", origin=ORIGIN)
    assert released.path.read_bytes() == released.data
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mp4"]
    found = verify(released.path)
    assert found["media"] == "video"
    shown = side if side >= 128 else released.enlargement * side
    about = {"width": shown, "height": shown, "num_frames": 5, "rate_fps": 25.0, "duration_s": 0.2}
    assert found["clip"] == about
    assert found["sha256"] == released.sha256
    assert found["credentials"]["state"] == "trusted"
    assert found["labels"]["iptc"] == {"present": True, "value": MADE}
    assert found["registry"]["match"] == "exact"
    assert (found["registry"]["id"], found["registry"]["model"]) == (released.id, "dcgan:tiny")
    mark = found["watermark"]
    assert (mark["present"], mark["authenticated"], mark["kind"]) == (True, True, "made")
    assert (mark["frames_read"], mark["frames_marked"]) == (5, 5)
    assert mark["payload"] == released.payload.hex()
    assert payload.is_authentic(released.payload, keys.installation().watermark_key)
    assert [row["met"] for row in found["standards"].values()] == [False, True, True, False]


def test_frames_are_taken_as_they_come(tmp_path):
    """No more than one frame waits: a clip may be longer than memory."""
    taken, marked = [], []

    def source():
        for image in clip(6):
            taken.append(len(marked))
            yield image

    embed = watermark.embed

    def counted(image, mark):
        marked.append(mark)
        return embed(image, mark)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watermark, "embed", counted)
        release_video(source(), 25, tmp_path / "a.mp4", origin=ORIGIN)
    assert taken == [0, 1, 2, 3, 4, 5]
    assert len(set(marked)) == 1


def test_odd_sides_are_made_even_by_whole_pixels(tmp_path):
    released = release_video(clip(2, 25, 40), 25, tmp_path / "a.mp4", origin=ORIGIN)
    assert released.enlargement == 12
    read = next(frames(open_clip(released.data)))
    assert (read.height, read.width) == (300, 480)
    large = release_video(clip(2, 129, 150), 25, tmp_path / "b.mp4", origin=ORIGIN)
    assert large.enlargement == 2


def test_equal_frames_give_equal_bytes():
    assert mp4() == mp4()


def test_colours_come_back():
    flat = [Image(np.full((64, 64, 3), colour, np.uint8)) for colour in ((200, 30, 60), (10, 90, 250), (128, 128, 128))]
    read = frames(open_clip(encode_video(flat, 25)))
    for before, after in zip(flat, read, strict=True):
        assert np.abs(before.samples.astype(int) - after.samples).max() <= 4


def test_the_watermark_outlives_another_encoder(tmp_path):
    """Decoded and encoded again at x264's own default, without our marks in the file."""
    released = release_video(clip(6, 32, 32), 25, tmp_path / "a.mp4", origin=ORIGIN)
    (tmp_path / "b.mp4").write_bytes(encode_video(frames(open_clip(released.data)), 25, crf=23))
    found = verify(tmp_path / "b.mp4")
    assert found["credentials"]["state"] == "absent"
    assert found["watermark"]["authenticated"]
    assert found["watermark"]["frames_marked"] > 3
    assert (found["registry"]["match"], found["registry"]["id"]) == ("near", released.id)


@pytest.mark.parametrize(
    ("name", "making", "message"),
    [
        ("a.png", lambda: clip(), "use .mp4"),
        ("a.mp4", lambda: iter(()), "needs a frame"),
        ("a.mp4", lambda: iter([*clip(1, 64, 64), *clip(1, 64, 32)]), "another size"),
        ("a.mp4", lambda: clip(1, 1, 3000), "cannot be enlarged"),
    ],
)
def test_what_cannot_be_asked_leaves_nothing(tmp_path, name, making, message):
    with pytest.raises(UsageError, match=message):
        release_video(making(), 25, tmp_path / name, origin=ORIGIN)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fps", [0, -1, 1000, float("nan")])
def test_an_impossible_rate_is_refused(tmp_path, fps):
    with pytest.raises(UsageError, match="fps"):
        release_video(clip(), fps, tmp_path / "a.mp4", origin=ORIGIN)


def test_odd_sides_are_not_encoded():
    with pytest.raises(UsageError, match="even"):
        encode_video(clip(1, 63, 64), 25)


@pytest.mark.parametrize("limit", ["MAX_FILE_BYTES", "MAX_DECODED_PIXELS"])
def test_a_clip_that_could_not_be_read_back_is_not_written(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(encode, limit, 1000)
    with pytest.raises(CountermarkError, match="shorten it"):
        release_video(clip(), 25, tmp_path / "a.mp4", origin=ORIGIN)
    assert list(tmp_path.iterdir()) == []


def fail(*arguments, **named):
    raise CountermarkError("made to fail")


def broken_source():
    yield from clip(3)
    fail()


@pytest.mark.parametrize("before", [None, b"what was there"])
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("watermark", "embed"), ("labels", "write"), ("credentials", "sign"), ("credentials", "read"),
        ("registry", "add"), ("registry", "new_number"), ("release", "open_clip"), (None, None),
    ],
)  # fmt: skip
def test_a_failure_at_any_step_leaves_what_was_there(tmp_path, monkeypatch, module, name, before):
    path = tmp_path / "a.mp4"
    if before is not None:
        path.write_bytes(before)
    if module is not None:
        monkeypatch.setattr(release if module == "release" else getattr(release, module), name, fail)
    with pytest.raises(CountermarkError, match="made to fail"):
        release_video(clip() if module else broken_source(), 25, path, origin=ORIGIN)
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == ({"a.mp4": before} if before else {})


def test_an_interruption_leaves_nothing(tmp_path):
    def interrupted():
        yield from clip(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        release_video(interrupted(), 25, tmp_path / "a.mp4", origin=ORIGIN)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("module", "name", "replacement", "message"),
    [
        ("credentials", "read", lambda *a: Credentials("valid", reasons=("no",)), "reads back as valid"),
        ("watermark", "embed", lambda image, mark: image, "reads back from 0 of 3 frames only"),
        ("release", "open_clip", lambda data, name: open_clip(mp4()), "another size or length"),
        ("release", "frames_of", lambda clip: list(frames(clip))[1:], "another size or length"),
    ],
)
def test_what_does_not_read_back_is_not_written(tmp_path, monkeypatch, module, name, replacement, message):
    monkeypatch.setattr(release if module == "release" else getattr(release, module), name, replacement)
    with pytest.raises(CountermarkError, match=message):
        release_video(clip(3), 25, tmp_path / "a.mp4", origin=ORIGIN)
    assert list(tmp_path.iterdir()) == []


def test_the_row_is_there_before_the_file_has_its_name(tmp_path, monkeypatch):
    def killed(staged, place):
        if str(place).endswith("a.mp4"):
            assert registry.lookup(verify(staged)["sha256"], None)["match"] == "exact"
            raise KeyboardInterrupt
        replace(staged, place)

    replace = os.replace
    monkeypatch.setattr(release.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        release_video(clip(2), 25, tmp_path / "a.mp4", origin=ORIGIN)
    assert list(tmp_path.iterdir()) == []


# verify


def test_a_mark_in_some_frames_is_counted(tmp_path):
    released = release_video(clip(12), 25, tmp_path / "a.mp4", origin=ORIGIN)
    own = list(frames(open_clip(released.data)))
    plain = [Image(np.full_like(own[0].samples, 90)) for _ in own]
    (tmp_path / "b.mp4").write_bytes(encode_video([*own[:5], *plain[5:]], 25))
    mark = verify(tmp_path / "b.mp4")["watermark"]
    assert (mark["present"], mark["frames_read"], mark["frames_marked"]) == (True, 12, 5)
    (tmp_path / "c.mp4").write_bytes(encode_video(plain, 25))
    mark = verify(tmp_path / "c.mp4")["watermark"]
    assert (mark["present"], mark["frames_read"], mark["frames_marked"]) == (False, 12, 0)


def test_of_a_long_clip_some_frames_are_read(tmp_path):
    (tmp_path / "a.mp4").write_bytes(mp4(MAX_READ_FRAMES + 20, 128))
    found = verify(tmp_path / "a.mp4")
    assert found["clip"]["num_frames"] == MAX_READ_FRAMES + 20
    assert found["watermark"]["frames_read"] == MAX_READ_FRAMES


def test_broken_clips_never_raise_and_are_never_trusted(tmp_path):
    data, rng = release_video(clip(3, 32, 32), 25, tmp_path / "a.mp4", origin=ORIGIN).data, random.Random(1)
    path, start = tmp_path / "broken.mp4", time.process_time()
    for _ in range(60):
        broken = bytearray(data[: rng.choice([len(data), rng.randrange(1, len(data))])])
        for _ in range(rng.choice([1, 3, 30])):
            broken[rng.randrange(len(broken))] ^= rng.randrange(1, 256)
        path.write_bytes(broken)
        found = verify(path)
        assert "error" in found or found["credentials"]["state"] != "trusted"
        assert "\n" not in found.get("error", "")
    assert time.process_time() - start < 60


@pytest.mark.parametrize(
    "packet",
    [
        b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>',
        b'<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><x>&b;</x>',
        b"\xff" * 2**21,
        b"",
    ],
)
def test_hostile_labels_are_data(tmp_path, packet):
    from countermark.provenance.containers import with_xmp

    (tmp_path / "a.mp4").write_bytes(with_xmp(mp4(), "mp4", packet, (64, 64)))
    found = verify(tmp_path / "a.mp4")
    assert found["labels"]["iptc"] == {"present": False, "value": None}
    assert "root:" not in str(found)


def test_a_store_of_garbage_is_invalid(tmp_path):
    from tests.clips import box

    parts = top(mp4())
    store = bytes.fromhex("d8fec3d61b0e483c92975828877ec481") + bytes(4) + b"manifest\0" + bytes(8)
    garbage = store + box(b"jumb", box(b"jumdc2pa", b"garbage"))[4:]
    (tmp_path / "a.mp4").write_bytes(joined([parts[0], (b"uuid", box(b"uuid", garbage)), *parts[1:]]))
    found = verify(tmp_path / "a.mp4")
    assert found.get("error") or found["credentials"]["state"] == "invalid"
