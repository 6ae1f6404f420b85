import json
import random
import struct
import time
import zlib

import numpy as np
import pytest

from countermark.core.media import Image
from countermark.provenance import keys, registry, standards
from countermark.provenance.containers import with_xmp
from countermark.provenance.credentials import MADE, Credentials
from countermark.provenance.encode import encode, roundtrip
from countermark.provenance.release import Origin, release
from countermark.provenance.verify import verify

SUFFIXES = (".png", ".jpg", ".webp")
SHAPE = {
    "path": None,
    "media": None,
    "sha256": None,
    "credentials": ["state", "generator", "issuer", "time", "digital_source_type", "kind", "reasons"],
    "watermark": ["present", "kind", "payload", "authenticated", "bit_agreement", "false_positive_rate", "reason"],
    "fingerprint": ["present", "run", "bit_agreement"],
    "labels": ["gb45438", "iptc"],
    "registry": ["match", "id", "kind", "model", "run"],
    "standards": ["eu-art50", "ca-sb942", "iptc", "gb45438"],
}


def picture(side: int = 128, seed: int = 0) -> Image:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    waves = sum(rng.normal() * np.cos(20 * rng.normal() * x + 20 * rng.normal() * y + rng.normal()) for _ in range(9))
    return Image((128 + 30 * waves[..., None] + rng.normal(0, 3, (side, side, 3))).clip(0, 255).astype(np.uint8))


def released(tmp_path, suffix: str, side: int = 128):
    origin = Origin("made", "m", run="r", seed=1)
    return release(picture(side), tmp_path / f"released{suffix}", origin=origin, native_size=True)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_shape(tmp_path, suffix):
    for path in (released(tmp_path, suffix).path, tmp_path / f"plain{suffix}"):
        if not path.exists():
            path.write_bytes(encode(picture(), {".jpg": "jpeg"}.get(suffix, suffix[1:])))
        found = verify(path)
        assert {name: list(part) if isinstance(part, dict) else None for name, part in found.items()} == SHAPE
        assert list(found["labels"]["gb45438"]) == ["present", "valid", "fields", "reasons"]
        assert list(found["labels"]["iptc"]) == ["present", "value"]
        assert all(list(row) == ["met", "missing"] for row in found["standards"].values())
        assert json.loads(json.dumps(found)) == found


def test_a_file_without_marks_has_none_and_makes_no_keys(tmp_path, home):
    path = tmp_path / "plain.png"
    path.write_bytes(encode(picture(), "png"))
    found = verify(path)
    assert found["credentials"]["state"] == "absent"
    assert not found["watermark"]["present"]
    assert not found["labels"]["iptc"]["present"]
    assert found["registry"] == {"match": "none", "id": None, "kind": None, "model": None, "run": None}
    assert not any(row["met"] for row in found["standards"].values())
    assert list(home.iterdir()) == []


def test_a_recoded_file_keeps_watermark_and_near_match_only(tmp_path):
    first = released(tmp_path, ".png", side=256)
    recoded = tmp_path / "recoded.jpg"
    recoded.write_bytes(encode(roundtrip(picture_of(first), "png"), "jpeg", quality=75))
    found = verify(recoded)
    assert found["credentials"]["state"] == "absent"
    assert found["watermark"]["authenticated"]
    assert found["registry"] == {"match": "near", "id": first.id, "kind": "made", "model": "m", "run": "r"}


def picture_of(file) -> Image:
    from countermark.core.media import read_image

    return read_image(file.path)


def test_a_stranger_mark_is_a_claim(tmp_path, monkeypatch):
    path = released(tmp_path, ".png").path
    monkeypatch.setenv("COUNTERMARK_HOME", str(tmp_path / "elsewhere"))
    found = verify(path)
    assert found["credentials"]["state"] == "valid"
    assert found["watermark"]["present"]
    assert not found["watermark"]["authenticated"]
    assert found["registry"]["match"] == "none"


def test_a_damaged_registry_is_told(tmp_path):
    path = released(tmp_path, ".png", side=40).path
    for companion in registry.path().parent.glob("registry.sqlite*"):
        companion.write_bytes(b"not a registry" * 100)
    found = verify(path)
    assert found["credentials"]["state"] == "trusted"
    assert "\n" not in found["registry"]["error"]


def test_a_broken_trust_folder_is_one_line(tmp_path, home):
    path = released(tmp_path, ".png", side=40).path
    (home / "trust").mkdir()
    (home / "trust" / "a.pem").write_text("x")
    assert "a.pem" in verify(path)["error"]


def test_an_unreadable_file_is_an_entry(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("folder.png", "text.png", "empty.png", "absent.png", "nul\0.png", "x" * 300 + ".png"):
        found = verify(tmp_path / name)
        assert list(found) == ["path", "error"]
        assert "Traceback" not in found["error"]


def test_the_content_decides_and_not_the_name(tmp_path):
    first = released(tmp_path, ".jpg", side=40)
    renamed = first.path.rename(tmp_path / "now.png")
    assert verify(renamed)["credentials"]["state"] == "trusted"


# Hostile files


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_broken_files_never_raise_and_are_never_trusted(tmp_path, suffix):
    data = released(tmp_path, suffix, side=24).data
    rng = random.Random(1)
    path = tmp_path / f"broken{suffix}"
    for _ in range(60):
        broken = bytearray(data[: rng.choice([len(data), rng.randrange(len(data))])])
        for _ in range(rng.choice([1, 3, 30])):
            if broken:
                broken[rng.randrange(len(broken))] ^= rng.randrange(1, 256)
        path.write_bytes(broken)
        found = verify(path)
        assert "error" in found or found["credentials"]["state"] != "trusted"
        json.dumps(found)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(*chunks: bytes) -> bytes:
    data = encode(picture(32), "png")
    return data[:33] + b"".join(chunks) + data[33:]


def png_of(width: int, height: int, pixels: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def jpeg_of_scans(side: int, num_scans: int) -> bytes:
    """A progressive JPEG whose every scan says in few bytes that nothing changes in any block."""

    def segment(marker: int, body: bytes) -> bytes:
        return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body

    num_blocks = (side // 8) ** 2
    head = segment(0xDB, bytes([0]) + bytes([1]) * 64)
    head += segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + bytes([1, 0x11, 0]))
    for table, symbol in ((0x00, 0x00), (0x10, 0xE0)):  # one code of one bit each: zero difference, run of 32767 blocks
        head += segment(0xC4, bytes([table, 1]) + bytes(15) + bytes([symbol]))
    first = segment(0xDA, bytes([1, 1, 0, 0, 0, 0])) + bytes(-(-num_blocks // 8))
    bits = ("0" + "1" * 14) * -(-num_blocks // 32767)
    bits += "1" * (-len(bits) % 8)
    runs = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    return b"\xff\xd8" + head + first + (segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + runs) * num_scans + b"\xff\xd9"


def hostile() -> dict[str, bytes]:
    zeros = zlib.compress(bytes(100 * 2**20), 9)
    webp, jpeg = encode(picture(32), "webp"), encode(picture(32), "jpeg")
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<!DOCTYPE x [<!ENTITY e0 "ha">{entities}]><x>&e11;</x>'.encode()
    outside = b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>'
    nested = b"jumb".join([struct.pack(">I", 8 + 12 * n) for n in range(3000, 0, -1)])
    escapes = (
        f'<x xmlns:I="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
        f"<I:DigitalSourceType>&lt;script&gt;\u202e{MADE}&#x9b;31m</I:DigitalSourceType></x>"
    ).encode()
    return {
        "declared huge": png_of(2**31 - 1, 2**31 - 1, zlib.compress(b"")),
        "declared large": png_of(30000, 30000, zlib.compress(b"")),
        "pixels missing": png_of(7000, 7000, zlib.compress(b"\0" * 100)),
        "zTXt bomb": png_with(chunk(b"zTXt", b"Comment\0\0" + zeros)),
        "iTXt bomb": png_with(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zeros)),
        "many iTXt": png_with(*[chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<a/>")] * 3000),
        "iCCP bomb": png_with(chunk(b"iCCP", b"p\0\0" + zeros)),
        "many chunks": png_with(*[chunk(b"aBcD", b"")] * 250_000),
        "entity bomb png": with_xmp(encode(picture(32), "png"), "png", bomb, (32, 32)),
        "entity bomb jpeg": with_xmp(jpeg, "jpeg", bomb, (32, 32)),
        "entity bomb webp": with_xmp(webp, "webp", bomb, (32, 32)),
        "outside entity": with_xmp(webp, "webp", outside, (32, 32)),
        "escapes": with_xmp(jpeg, "jpeg", escapes, (32, 32)),
        "nested boxes": png_with(chunk(b"caBX", nested)),
        "empty store": png_with(chunk(b"caBX", b"")),
        "store of garbage": png_with(chunk(b"caBX", struct.pack(">I", 30) + b"jumb" + bytes(22))),
        "jpeg of markers": b"\xff\xd8" + b"\xff\xfe\x00\x02" * 400_000,
        "jpeg of fill": b"\xff\xd8" + b"\xff" * 2_000_000,
        "jpeg of junk": b"\xff\xd8\xff\xe0\x00\x02" + b"j" * 3_000_000,
        "jpeg of scans": jpeg_of_scans(4000, 5000),
        "riff of nothing": b"RIFF\x04\x00\x00\x00WEBP",
        "riff of chunks": b"RIFF" + struct.pack("<I", 4 + 8 * 300_000) + b"WEBP" + b"AAAA\0\0\0\0" * 300_000,
        "picture and archive": jpeg + b"PK\x03\x04" + bytes(1000),
        "script": b"\x89PNG\r\n\x1a\n<script>alert(1)</script>",
    }


@pytest.mark.parametrize("name", sorted(hostile()))
def test_hostile_files_end_soon_and_are_data(tmp_path, name):
    path = tmp_path / "hostile.png"
    path.write_bytes(hostile()[name])
    start = time.perf_counter()
    found = verify(path)
    assert time.perf_counter() - start < 10
    assert "error" in found or found["credentials"]["state"] in ("absent", "invalid")
    assert b"root:" not in json.dumps(found).encode()


# Standards


def table(**evidence):
    said = {"state": "trusted", "generator": "S 1", "time": "t", "digital_source_type": MADE, "identifier": "i"}
    said |= {"generation": {"provider": "p"}, "time_stamped": True} | evidence
    marks = {"present": True}
    labels = {"iptc": {"present": True, "value": MADE}, "gb45438": {"valid": True}}
    return standards.table(Credentials(**said), marks, labels)


def test_a_file_with_everything_meets_what_can_be_checked():
    assert {name: row["met"] for name, row in table().items()} == {
        "eu-art50": True,
        "ca-sb942": True,
        "iptc": True,
        "gb45438": False,
    }


@pytest.mark.parametrize(
    ("evidence", "standard", "missing"),
    [
        ({"time_stamped": False}, "eu-art50", "a trusted time stamp on the signature"),
        ({"state": "invalid"}, "eu-art50", "signed metadata that say synthetic"),
        ({"digital_source_type": None}, "eu-art50", "signed metadata that say synthetic"),
        ({"state": "absent"}, "ca-sb942", "a signed latent disclosure"),
        ({"generation": {}}, "ca-sb942", "the provider's name"),
        ({"generator": None}, "ca-sb942", "the system's name and version"),
        ({"time": None}, "ca-sb942", "the date and time"),
        ({"identifier": None}, "ca-sb942", "a unique identifier"),
    ],
)
def test_what_lacks_is_named(evidence, standard, missing):
    row = table(**evidence)[standard]
    assert not row["met"]
    assert missing in row["missing"]


def test_a_released_file_lacks_the_time_stamp_only(tmp_path):
    found = verify(released(tmp_path, ".webp").path)["standards"]
    assert found["eu-art50"] == {"met": False, "missing": ["a trusted time stamp on the signature"]}
    assert found["ca-sb942"]["met"]
    assert found["iptc"]["met"]
    assert not found["gb45438"]["met"]


def test_keys_of_another_are_not_taken_for_ours(tmp_path, monkeypatch):
    path = released(tmp_path, ".png").path
    monkeypatch.setenv("COUNTERMARK_HOME", str(tmp_path / "other"))
    keys.installation()
    assert not verify(path)["watermark"]["authenticated"]
