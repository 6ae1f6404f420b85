import json
import os
import sqlite3

import numpy as np
import pytest

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.media import Image, decode_image, read_image
from countermark.provenance import credentials, encode, keys, labels, payload, registry, release, settings, watermark
from countermark.provenance.credentials import MADE, Credentials
from countermark.provenance.release import Origin
from countermark.provenance.verify import verify

ORIGIN = Origin("made", "dcgan:tiny", run="run-1", seed=7)


def picture(height: int, width: int, channels: int = 3) -> Image:
    y, x = np.mgrid[0:height, 0:width] / 64
    waves = [128 + 90 * np.sin(5 * x + 3 * y * channel + channel) for channel in range(channels)]
    noise = np.random.default_rng(0).normal(0, 3, (height, width, 1))
    return Image((np.stack(waves, axis=2) + noise).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mark_is_on_the_file(tmp_path, suffix, channels):
    released = release.release(picture(144, 160, channels), tmp_path / f"a{suffix}", origin=ORIGIN)
    assert released.path.read_bytes() == released.data
    assert [entry.name for entry in tmp_path.iterdir()] == [f"a{suffix}"]
    found = verify(released.path)
    assert found["sha256"] == released.sha256
    assert found["credentials"]["state"] == "trusted"
    assert found["labels"]["iptc"] == {"present": True, "value": MADE}
    named = {"kind": "made", "model": "dcgan:tiny", "run": "run-1"}
    assert found["registry"] == {"match": "exact", "id": released.id, **named}
    assert found["watermark"]["present"]
    assert found["watermark"]["authenticated"]
    assert found["watermark"]["kind"] == "made"
    assert found["watermark"]["payload"] == released.payload.hex()
    assert payload.is_authentic(released.payload, keys.installation().watermark_key)


def test_png_pixels_are_the_watermarked_ones(tmp_path):
    image = picture(128, 128)
    released = release.release(image, tmp_path / "a.png", origin=ORIGIN)
    shown = read_image(released.path).samples
    assert not np.array_equal(shown, image.samples)
    assert np.abs(shown.astype(int) - image.samples).max() < 64


@pytest.mark.parametrize(("height", "width", "times"), [(28, 28, 10), (127, 300, 3), (40, 64, 7)])
def test_a_small_picture_is_enlarged_by_whole_pixels(tmp_path, monkeypatch, height, width, times):
    monkeypatch.setattr(release.watermark, "embed", lambda image, mark: image)
    monkeypatch.setattr(release, "_read_back", lambda *arguments: None)
    image = picture(height, width)
    released = release.release(image, tmp_path / "a.png", origin=ORIGIN)
    shown = read_image(released.path).samples
    assert released.enlargement == times
    assert shown.shape == (height * times, width * times, 3)
    assert min(shown.shape[:2]) >= 256
    assert np.array_equal(shown[::times, ::times], image.samples)
    assert np.array_equal(shown[times - 1 :: times, times - 1 :: times], image.samples)


def test_a_small_picture_carries_the_watermark_once_enlarged(tmp_path):
    found = verify(release.release(picture(28, 28, 1), tmp_path / "a.png", origin=ORIGIN).path)
    assert found["watermark"]["authenticated"]


def test_native_size_has_no_watermark_and_says_why(tmp_path):
    image = picture(28, 20)
    released = release.release(image, tmp_path / "a.png", origin=ORIGIN, native_size=True)
    assert np.array_equal(read_image(released.path).samples, image.samples)
    assert released.payload is None
    assert "native size" in released.reason
    found = verify(released.path)
    assert found["credentials"]["state"] == "trusted"
    assert not found["watermark"]["present"]
    assert "native size" in found["watermark"]["reason"]
    assert "an imperceptible watermark" in found["standards"]["eu-art50"]["missing"]


def test_native_size_changes_nothing_for_a_large_picture(tmp_path):
    released = release.release(picture(128, 128), tmp_path / "a.png", origin=ORIGIN, native_size=True)
    assert released.payload is not None


def test_the_manifest_tells_the_origin_and_no_path(tmp_path):
    origin = Origin("made", "r3gan:faces", run="run-9", seed=(1, 2**62), lineage=("run-8", "run-7"))
    released = release.release(picture(20, 24), tmp_path / "a.png", origin=origin, native_size=True)
    said = credentials.read(released.data, "png", keys.trust_list()).generation
    wanted = {
        "id": released.id,
        "kind": "made",
        "model": "r3gan:faces",
        "run": "run-9",
        "seeds": f"1,{2**62}",
        "lineage": "run-8; run-7",
        "system": "Countermark",
        "provider": settings.UNNAMED_PROVIDER,
        "size": {"native": "24x20", "released": "24x20", "enlargement": 1},
    }
    assert {name: said[name] for name in wanted} == wanted
    assert str(tmp_path).encode() not in released.data
    assert os.uname().nodename.encode() not in released.data


@pytest.mark.parametrize("kind", ["edited", "protected"])
def test_other_kinds_are_never_made(tmp_path, kind):
    parent = release.release(picture(30, 30), tmp_path / "parent.jpg", origin=ORIGIN, native_size=True).data
    origin = Origin(kind, "other", parent=parent)
    found = verify(release.release(picture(128, 128), tmp_path / "a.jpg", origin=origin).path)
    assert found["watermark"]["kind"] == found["credentials"]["kind"] == found["registry"]["kind"] == kind
    assert found["credentials"]["state"] == "trusted"


def test_a_user_provider_is_named(tmp_path, home):
    (home / "settings.json").write_text(json.dumps({"provider": "Atelier 9"}))
    released = release.release(picture(30, 30), tmp_path / "a.png", origin=ORIGIN, native_size=True)
    assert credentials.read(released.data, "png", keys.trust_list()).generation["provider"] == "Atelier 9"


# Failures


def fail(*arguments, **options):
    raise CountermarkError("made to fail")


STEPS = [
    (watermark, "embed"),
    (release, "encode"),
    (labels, "write"),
    (credentials, "sign"),
    (release, "decode_image"),
    (watermark, "read"),
    (credentials, "read"),
    (registry, "add"),
    (release, "write_atomic"),
]


@pytest.mark.parametrize(("module", "step"), STEPS)
@pytest.mark.parametrize("before", [None, b"what was there"])
def test_a_failure_at_any_step_leaves_what_was_there(tmp_path, monkeypatch, module, step, before):
    path = tmp_path / "a.png"
    if before is not None:
        path.write_bytes(before)
    monkeypatch.setattr(module, step, fail)
    with pytest.raises(CountermarkError, match="made to fail"):
        release.release(picture(128, 128), path, origin=ORIGIN)
    assert [entry.name for entry in tmp_path.iterdir()] == ([] if before is None else ["a.png"])
    if before is not None:
        assert path.read_bytes() == before
    monkeypatch.undo()


class NoCommit:
    """A connection whose disk is full when a row is to be kept."""

    def __init__(self, connection):
        self.connection = connection

    def __getattr__(self, name):
        return getattr(self.connection, name)

    def execute(self, query, *rest):
        if query.startswith("INSERT"):
            raise sqlite3.OperationalError("database or disk is full")
        return self.connection.execute(query, *rest)


@pytest.mark.parametrize("before", [None, b"what was there"])
def test_a_row_that_cannot_be_kept_leaves_what_was_there(tmp_path, monkeypatch, before):
    path = tmp_path / "a.png"
    if before is not None:
        path.write_bytes(before)
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: NoCommit(connect(*a, **k)))
    with pytest.raises(CountermarkError, match="disk is full") as caught:
        release.release(picture(30, 30), path, origin=ORIGIN, native_size=True)
    assert "\n" not in str(caught.value)
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == ({"a.png": before} if before else {})


def test_the_row_is_there_before_the_file_has_its_name(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"what was there")
    seen = []

    def killed(staged, place):
        seen.append(verify(staged)["registry"]["match"])
        raise KeyboardInterrupt

    monkeypatch.setattr(release.os, "replace", stopped_at(path, killed))
    with pytest.raises(KeyboardInterrupt):
        release.release(picture(30, 30), path, origin=ORIGIN, native_size=True)
    assert seen == ["exact"]
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {"a.png": b"what was there"}


def stopped_at(path, stop):
    """os.replace that calls `stop` when it comes to `path`."""
    replace = os.replace
    return lambda source, place: (stop if place == path else replace)(source, place)


def test_a_name_that_is_taken_by_a_folder_is_one_line(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(CountermarkError, match=r"cannot write .*a\.png"):
        release.release(picture(30, 30), tmp_path / "a.png", origin=ORIGIN, native_size=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]
    with sqlite3.connect(registry.path()) as connection:
        assert connection.execute("SELECT count(*) FROM released").fetchone() == (0,)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (("credentials", "read", lambda *a: Credentials("valid", reasons=("no",))), "reads back as valid"),
        (("watermark", "embed", lambda image, mark: image), "watermark does not"),
        (("release", "decode_image", lambda data, name: picture(128, 128)), "other pixels"),
        (("release", "decode_image", lambda data, name: picture(128, 129)), "another size"),
    ],
)
def test_what_does_not_read_back_is_not_written(tmp_path, monkeypatch, broken, message):
    module, name, replacement = broken
    monkeypatch.setattr(
        {"credentials": credentials, "watermark": watermark, "release": release}[module], name, replacement
    )
    with pytest.raises(CountermarkError, match=message):
        release.release(picture(128, 128), tmp_path / "a.png", origin=ORIGIN)
    assert list(tmp_path.iterdir()) == []


def test_an_untrusted_own_certificate_is_refused(tmp_path, home, monkeypatch):
    monkeypatch.setenv("COUNTERMARK_HOME", str(tmp_path / "stranger"))
    keys.installation()
    monkeypatch.setenv("COUNTERMARK_HOME", str(home))
    folder = tmp_path / "stranger" / "keys"
    policy = settings.Settings(certificate=folder / "leaf.pem", key=folder / "leaf-key.pem")
    with pytest.raises(CountermarkError, match="trust folder"):
        release.release(picture(30, 30), tmp_path / "a.png", origin=ORIGIN, native_size=True, policy=policy)
    assert not (tmp_path / "a.png").exists()
    (home / "trust").mkdir()
    (home / "trust" / "stranger.pem").write_bytes((folder / "root.pem").read_bytes())
    release.release(picture(30, 30), tmp_path / "a.png", origin=ORIGIN, native_size=True, policy=policy)
    assert verify(tmp_path / "a.png")["credentials"]["state"] == "trusted"


def test_what_cannot_be_asked_is_refused(tmp_path):
    with pytest.raises(UsageError, match="named so"):
        release.release(picture(30, 30), tmp_path / "a.gif", origin=ORIGIN)
    policy = settings.Settings(standards=("gb45438",))
    with pytest.raises(UsageError, match="gb45438"):
        release.release(picture(30, 30), tmp_path / "a.png", origin=ORIGIN, policy=policy)
    with pytest.raises(UsageError, match="native size"):
        release.release(picture(1, 3000), tmp_path / "a.png", origin=ORIGIN)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_made_and_an_impossible_one_is_one_line(tmp_path):
    release.release(picture(30, 30), tmp_path / "x" / "y" / "a.png", origin=ORIGIN, native_size=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(CountermarkError, match="cannot write"):
        release.release(picture(30, 30), tmp_path / "file" / "a.png", origin=ORIGIN, native_size=True)


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{",
        '{"provider": 3}',
        '{"colour": "red"}',
        '{"standards": ["x"]}',
        '{"key": "k"}',
        '{"standards": "iptc"}',
    ],
)
def test_damaged_settings_are_one_line(home, content):
    (home / "settings.json").write_text(content)
    with pytest.raises(CountermarkError) as caught:
        settings.load()
    assert "\n" not in str(caught.value)


def test_the_pixels_encoded_are_the_pixels_shown():
    image = picture(20, 20)
    assert np.array_equal(decode_image(encode.encode(image, "png")).samples, image.samples)
