"""Credentials of MP4 files: the hash of C2PA leaves more out there, and none of it may be changed."""

import io
import random
from functools import cache

import c2pa
import pytest

from countermark.provenance import credentials, keys, labels, seal
from countermark.provenance.containers import with_xmp
from countermark.provenance.credentials import EDITED, MADE, Origin
from countermark.provenance.encode import encode
from tests.clips import box, clip, joined, mp4, top

ORIGIN = Origin("made", "dcgan:tiny", run="run-1", seed=(7, 8), truncation=0.7)
CREATED = "2026-01-02T03:04:05+00:00"
SAID = {"id": "0b5e", "provider": "somebody", "watermark": {"present": True, "payload": "00", "reason": None}}
STORE = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")


@cache
def plain() -> bytes:
    return labels.write(mp4(), "mp4", MADE, (64, 64))


def signed(origin: Origin = ORIGIN, data: bytes | None = None) -> bytes:
    definition = credentials.manifest(origin, SAID, CREATED)
    identity = keys.installation().identity
    return credentials.sign(data or plain(), "mp4", definition, identity, origin.parent)


def state(data: bytes) -> str:
    return credentials.read(data, "mp4", keys.trust_list()).state


def state_by_c2pa(data: bytes) -> str:
    settings = {"trust": {"user_anchors": keys.trust_list()}, "verify": {"remote_manifest_fetch": False}}
    with c2pa.Reader("video/mp4", io.BytesIO(data), context=c2pa.Context.from_dict(settings)) as reader:
        return reader.get_validation_state()


def changed(data: bytes, position: int, flip: int) -> bytes:
    return data[:position] + bytes([data[position] ^ flip]) + data[position + 1 :]


def test_what_was_said_is_read() -> None:
    read = credentials.read(signed(), "mp4", keys.trust_list())
    assert read.state == "trusted"
    assert read.digital_source_type == MADE
    assert (read.generation["seeds"], read.generation["truncation"]) == ("7,8", 0.7)
    assert state(plain()) == "absent"


def test_a_stranger_is_valid(monkeypatch, tmp_path, home) -> None:
    monkeypatch.setenv("COUNTERMARK_HOME", str(tmp_path / "stranger"))
    data = signed()
    monkeypatch.setenv("COUNTERMARK_HOME", str(home))
    assert state(data) == "valid"


@pytest.mark.parametrize("parent", [lambda: signed(), lambda: encode(next(clip()), "png")])
def test_a_parent_is_referred_to(parent) -> None:
    read = credentials.read(signed(Origin("edited", "other", parent=parent())), "mp4", keys.trust_list())
    assert (read.state, read.digital_source_type) == ("trusted", EDITED)


def test_no_flipped_byte_is_trusted() -> None:
    """A sample of what benchmarks/video_marks.py does to every byte."""
    data, rng = signed(), random.Random(0)
    assert state(data) == "trusted"
    for position in rng.sample(range(len(data)), 400):
        assert state(changed(data, position, rng.randrange(1, 256))) != "trusted", position


def test_no_flipped_byte_that_no_hash_covers_is_trusted() -> None:
    """The first box, the head of the store's box and of those around it, free space, label."""
    data = signed()
    around = [*range(120), *range(len(data) - 40, len(data))]
    for kind in (b"free", b"mdat", b"moov", b"uuid\xbe\x7a"):
        around += range(data.index(kind) - 4, data.index(kind) + 12)
    padding = data.rindex(bytes(200))
    around += range(padding - 8, padding + 208)
    for position in around:
        for flip in (0x01, 0xFF):
            assert state(changed(data, position, flip)) != "trusted", (position, flip)


def test_changes_that_c2pa_alone_would_not_notice() -> None:
    data = signed()
    parts = top(data)
    hidden = box(b"free", b"a message to somebody")
    unseen = {
        "another first box": [(b"ftyp", box(b"ftyp", b"isom\0\0\2\1isomiso2avc1mp41")), *parts[1:]],
        "free space with words at the end": [*parts, (b"free", hidden)],
        "free space at the end": [*parts, (b"free", box(b"free", b""))],
        "an index of fragments": [*parts, (b"mfra", box(b"mfra", box(b"mfro", b"anything")))],
        "store behind free space": [parts[0], parts[2], parts[1], *parts[3:]],
    }
    for name, changed_parts in unseen.items():
        assert state_by_c2pa(joined(changed_parts)) == "Trusted", name
        read = credentials.read(joined(changed_parts), "mp4", keys.trust_list())
        assert read.state == "valid", name
        assert any("hash" in reason or "first box" in reason for reason in read.reasons), name


def test_hybrids_are_not_trusted() -> None:
    data, other = signed(), signed(data=labels.write(mp4(5), "mp4", MADE, (64, 64)))
    parts, others = top(data), top(other)
    without = [part for part in parts if STORE not in part[1][:24]]
    media, movie = [part for part in others if part[0] == b"mdat"], [part for part in others if part[0] == b"moov"]
    hybrids = {
        "appended": data + b"PK\x03\x04 an archive",
        "appended box": joined([*parts, (b"uuid", box(b"uuid", bytes(16) + b"words"))]),
        "appended clip": data + other,
        "prepended": other + data,
        "store twice": joined([*parts[:2], *parts[1:]]),
        "two stores": joined([*parts[:2], others[1], *parts[2:]]),
        "store of another file": joined([parts[0], others[1], *parts[2:]]),
        "store removed": joined(without),
        "store at the end": joined([*without, parts[1]]),
        "other frames": joined([media[0] if part[0] == b"mdat" else part for part in parts]),
        "other header": joined([movie[0] if part[0] == b"moov" else part for part in parts]),
        "two headers": joined([*parts, movie[0]]),
        "cut": data[:-1],
        "no label": joined(parts[:-1]),
        "two first boxes": joined([parts[0], *parts]),
    }
    for name, hybrid in hybrids.items():
        assert state(hybrid) != "trusted", name


def test_a_label_added_after_signing_is_not_trusted() -> None:
    data = signed(data=mp4())
    assert state(data) == "trusted"
    assert state(with_xmp(data, "mp4", b"<a/>", (64, 64))) == "invalid"


def test_truncations_never_raise_and_are_never_trusted() -> None:
    data = signed()
    for stop in range(0, len(data), 197):
        assert state(data[:stop]) != "trusted"


def test_usual_first_boxes_differ_in_more_than_a_byte() -> None:
    kinds = seal._USUAL_FILE_TYPES
    for i, one in enumerate(kinds):
        for another in kinds[:i]:
            assert len(one) != len(another) or sum(a != b for a, b in zip(one, another, strict=True)) > 1
