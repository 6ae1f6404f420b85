"""Hostile pictures, archives and folders, made from a seed: what `benchmarks.hostile` feeds to the commands.

Every maker takes a random.Random and a Stock, and returns the bytes of one file (PICTURES) or fills a folder or writes
an archive (SOURCES). Nothing here may harm the machine that it runs on: the largest file is some megabytes.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import PIL.Image

from countermark.core.media import Image
from countermark.provenance import credentials, keys
from countermark.provenance.containers import XMP_APP1, XMP_KEYWORD, parts
from countermark.provenance.encode import encode
from countermark.provenance.labels import AIGC, IPTC

FORMATS = ("png", "jpeg", "webp")
SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
# What a terminal or a browser would act on, were it not escaped. None of it may be seen again as it is.
POISON = "<script>alert(1)</script>\x1b[31m\x1b]0;owned\x07\x9b2J\u202etxt.exe\u2066\r\nTraceback <img src=x onerror=1>"
NAMES = (
    "<script>alert(1)<&.png",
    "\x1b[31mred\x1b[0m.png",
    "\x1b]0;title\x07.png",
    "one\ntwo.png",
    "\rover.png",
    "rtl\u202egnp.exe",
    "zero\u200bwidth\ufeff.png",
    "\udcff\udcfe\udc80.png",
    "\x9b2J\x85.png",
    "\x7f\x08\x08.png",
    "'\"><b onmouseover=alert(1)>.png",
    "{{7*7}}{% raise %}.png",
    "[red]markup[bold] [link=file:x].png",
    "$(touch owned)`touch owned`;&|.png",
    "--report.png",
    "%s%n%x{0}{path.__class__}.png",
    "\u2028line\u2029.png",
    "e\u0301" * 60 + ".png",
    "x" * 240 + ".png",
    "COUNTERMARK: error\n\x1b[2K.webp",
)


@dataclass(frozen=True)
class Stock:
    """Sound files to damage: plain and released ones by format; `secret` is a file that no output may quote; `port` is
    one on this machine at which nobody may knock; `poisoned` are pictures signed with POISON wherever text fits."""

    plain: dict[str, bytes]
    marked: dict[str, list[bytes]]
    poisoned: list[bytes]
    secret: Path
    port: int


def plain_pictures(side: int = 160) -> dict[str, bytes]:
    """A picture with structure in each format."""
    rng = np.random.default_rng(0)
    coarse = PIL.Image.fromarray(rng.integers(0, 256, (10, 10, 3), np.uint8))
    image = Image(np.asarray(coarse.resize((side, side), PIL.Image.Resampling.BICUBIC)))
    return {format: encode(image, format) for format in FORMATS}


def poisoned_pictures(plain: dict[str, bytes]) -> list[bytes]:
    """Pictures validly signed by a stranger who puts POISON into the names of issuer, generator, source and id."""
    from cryptography.hazmat.primitives.asymmetric import ec

    root_key, leaf_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    name = POISON[:56]
    root = keys._certificate(name, name, root_key.public_key(), root_key, is_authority=True)
    leaf = keys._certificate(name, name, leaf_key.public_key(), root_key, is_authority=False)
    identity = keys.Identity((leaf + root).decode(), keys._key_pem(leaf_key))
    origin = credentials.Origin("made", POISON, run=POISON.replace("/", ""), lineage=(POISON,))
    said = {"id": POISON, "provider": POISON, "watermark": {"present": False, "reason": POISON}, "size": {}}
    definition = credentials.manifest(origin, said, POISON)
    definition["claim_generator_info"][0]["name"] = POISON
    for action in definition["assertions"][0]["data"]["actions"]:
        action.update(digitalSourceType=f"http://example.org/{POISON}", when="2026-01-01T00:00:00Z")
        action["softwareAgent"] = {"name": POISON, "version": POISON}
    return [credentials.sign(plain[format], format, definition, identity, None) for format in FORMATS]


# -- parts of files ----------------------------------------------------------------------------------------------------


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *chunks: bytes, pixels: bytes = b"", depth: int = 8, colour: int = 0) -> bytes:
    """A PNG with any header and any chunks before its pixels (deflated already)."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + b"".join(chunks) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WEBP" + b"".join(k + struct.pack("<I", len(b)) + b + b"\0" * (len(b) % 2) for k, b in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def with_part(data: bytes, format: str, kind: str, body: bytes) -> bytes:
    """`data` with one more metadata part: 'exif', 'xmp' or 'c2pa'."""
    if format == "png":
        names = {"exif": b"eXIf", "c2pa": b"caBX", "xmp": b"iTXt"}
        content = XMP_KEYWORD + b"\0\0\0\0\0" + body if kind == "xmp" else body
        return data[:33] + png_chunk(names[kind], content) + data[33:]
    if format == "jpeg":
        if kind == "c2pa":
            return data[:2] + b"".join(_app11(body)) + data[2:]
        content = (b"Exif\0\0" if kind == "exif" else XMP_APP1) + body
        return data[:2] + b"".join(segment(0xE1, content[:65533]) for _ in range(1)) + data[2:]
    chunk = {"exif": b"EXIF", "xmp": b"XMP ", "c2pa": b"C2PA"}[kind]
    extra = chunk + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
    return b"RIFF" + struct.pack("<I", len(data) - 8 + len(extra)) + data[8:] + extra


def _app11(store: bytes) -> list[bytes]:
    head, rest = store[:8], store[8:]
    pieces = [rest[at : at + 60_000] for at in range(0, max(len(rest), 1), 60_000)]
    return [segment(0xEB, b"JP\2\x11" + struct.pack(">I", n) + head + p) for n, p in enumerate(pieces[:300], 1)]


def box(kind: bytes, body: bytes, length: int | None = None) -> bytes:
    return struct.pack(">I", (len(body) + 8 if length is None else length) & 0xFFFFFFFF) + kind + body


def described(uuid: bytes, label: bytes, *children: bytes) -> bytes:
    about = uuid + bytes.fromhex("00110010800000aa00389b71") + b"\x03" + label + b"\0"
    return box(b"jumb", box(b"jumd", about) + b"".join(children))


# -- pictures ----------------------------------------------------------------------------------------------------------


def any_sound(rng: Random, stock: Stock) -> bytes:
    return rng.choice([*stock.plain.values(), *(data for found in stock.marked.values() for data in found)])


def truncated(rng: Random, stock: Stock) -> bytes:
    data = any_sound(rng, stock)
    return data[: rng.randrange(len(data))]


def flipped(rng: Random, stock: Stock) -> bytes:
    data = bytearray(any_sound(rng, stock))
    for _ in range(rng.choice((1, 1, 3, 30))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def flipped_marked(rng: Random, stock: Stock) -> bytes:
    data = bytearray(rng.choice(stock.marked[rng.choice(FORMATS)]))
    data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
    return bytes(data)


def spliced(rng: Random, stock: Stock) -> bytes:
    """The beginning of one file and the end of another; or a run of a file written twice."""
    one, other = any_sound(rng, stock), any_sound(rng, stock)
    return one[: rng.randrange(len(one))] + other[rng.randrange(len(other)) :]


def other_file(rng: Random, stock: Stock) -> bytes:
    """Something else under a picture's name."""
    junk = rng.randbytes(rng.randrange(2000))
    heads = (b"", b"GIF89a", b"BM", b"II*\0", b"%PDF-1.7\n", b"#!/bin/sh\ntouch owned\n", b"\x7fELF", b"<svg onload=x>")
    heads += (
        b"%!PS-Adobe-3.0 EPSF\n(touch owned) run",
        b"PK\3\4",
        b"\x93NUMPY",
        b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.",
    )
    heads += (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\xff\xff\xff\xffWEBP", b"RIFF\0\0\0\0WEBPVP8X")
    return rng.choice(heads) + junk


def huge(rng: Random, stock: Stock) -> bytes:
    """Sizes that no memory holds, in few bytes."""
    width, height = rng.choice(
        ((2**31 - 1, 2**31 - 1), (10**5, 10**5), (2**31 - 1, 1), (65535, 65535), (16383, 16383), (1, 10**9), (0, 0))
    )
    kind = rng.randrange(4)
    if kind == 0:
        pixels = zlib.compress(bytes(10**6), 9)
        return png(width, height, pixels=pixels, depth=rng.choice((1, 8, 16)), colour=rng.choice((0, 2, 3, 6)))
    if kind == 1:
        data = bytearray(stock.plain["jpeg"])
        frame = next(part for part in parts(bytes(data), "jpeg") if part.kind in ("c0", "c2"))
        data[frame.body + 1 : frame.body + 5] = struct.pack(">HH", min(height, 65535), min(width, 65535))
        return bytes(data)
    sides = [(min(side, 2**24) - 1) & 0xFFFFFF for side in (width, height)]
    header = bytes([0x12, 0, 0, 0]) + b"".join(side.to_bytes(3, "little") for side in sides)
    inner = stock.plain["webp"][12:]
    if kind == 2:
        return riff((b"VP8X", header), (inner[:4], inner[8:]))
    return riff((b"VP8L", b"\x2f" + rng.randbytes(4) + bytes(20)))


def deflate_bomb(rng: Random, stock: Stock) -> bytes:
    """A chunk of some kilobytes that inflates to a gigabyte: text, profile or pixels."""
    bomb = _bomb()
    at = rng.randrange(6)
    if at == 0:
        chunk = png_chunk(b"zTXt", b"Comment\0\0" + bomb)
    elif at == 1:
        chunk = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb)
    elif at == 2:
        chunk = png_chunk(b"iCCP", b"icc\0\0" + bomb)
    elif at == 3:
        chunk = png_chunk(b"zTXt", b"Raw profile type exif\0\0" + bomb)
    elif at == 4:
        return png(64, 64, pixels=bomb)
    else:
        chunk = b"".join(png_chunk(b"zTXt", b"k%d\0\0" % i + bomb[: len(bomb) // 16]) for i in range(20))
    data = stock.plain["png"]
    return data[:33] + chunk + data[33:]


_BOMBS: list[bytes] = []


def _bomb() -> bytes:
    """A deflated gigabyte of zeros (1 MB)."""
    if not _BOMBS:
        packer = zlib.compressobj(9)
        _BOMBS.append(b"".join(packer.compress(bytes(2**20)) for _ in range(1024)) + packer.flush())
    return _BOMBS[0]


def many_parts(rng: Random, stock: Stock) -> bytes:
    """Hundreds of thousands of parts, fill bytes, or bytes between parts."""
    num, sound = rng.choice((5_000, 90_000, 400_000)), stock.plain
    kinds = (
        lambda: sound["png"][:33] + png_chunk(b"tEXt", b"a\0b") * num + sound["png"][33:],
        lambda: sound["png"][:33] + png_chunk(b"IDAT", b"") * num + sound["png"][33:],
        lambda: sound["jpeg"][:2] + segment(0xFE, b"") * num + sound["jpeg"][2:],
        lambda: sound["jpeg"][:2] + b"\xff" * (10 * num) + sound["jpeg"][2:],
        lambda: sound["jpeg"][:20] + b"\0" * (10 * num) + sound["jpeg"][20:],
        lambda: sound["jpeg"][:2] + b"\xff\xd0" * num + sound["jpeg"][2:],
        lambda: sound["jpeg"] + b"\xff" * (10 * num),
        lambda: b"\xff\xd8" + b"\xff" * (10 * num),
        lambda: riff(*[(b"JUNK", b"")] * num, (sound["webp"][12:16], sound["webp"][20:])),
        lambda: (
            sound["jpeg"][:2] + segment(0xE1, b"Exif\0\0" + bytes(65000)) * (num // 10_000 * 10) + sound["jpeg"][2:]
        ),
        lambda: sound["jpeg"][:2] + segment(0xE2, b"ICC_PROFILE\0\1\xff" + bytes(60000)) * 100 + sound["jpeg"][2:],
    )
    return rng.choice(kinds)()


def many_scans(rng: Random, stock: Stock) -> bytes:
    """A progressive JPEG of a few kilobytes whose every scan visits every block of a large picture."""
    side, num = rng.choice(((64, 3000), (7000, 15), (7000, 400), (2000, 90), (7000, 19), (7000, 99), (200, 10**5)))
    quantiser = segment(0xDB, b"\0" + bytes([1] * 64))
    frame = segment(0xC2, b"\x08" + struct.pack(">HH", side, side) + b"\3\1\x11\0\2\x11\0\3\x11\0")
    tables = segment(0xC4, b"\x00\1" + bytes(15) + b"\0") + segment(0xC4, b"\x10\1" + bytes(15) + b"\xe0")
    first = segment(0xDA, b"\3\1\0\2\0\3\0\0\0\1") + bytes(side * side // 64 * 3 // 8 + 200)
    refined = segment(0xDA, rng.choice((b"\1\1\0\1\x3f\1", b"\1\1\0\1\x3f\x10", b"\3\1\0\2\0\3\0\0\0\x10"))) + bytes(
        150
    )
    return b"\xff\xd8" + quantiser + frame + tables + first + refined * num + b"\xff\xd9"


def xml_bomb(rng: Random, stock: Stock) -> bytes:
    """Entities in XMP: billion laughs, quadratic, a file, an address; and XML that is merely large or deep."""
    laughs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12))
    address = f"http://127.0.0.1:{stock.port}/"
    xml = rng.choice(
        (
            f'<!DOCTYPE x [<!ENTITY l0 "ha">{laughs}]><x>&l11;</x>',
            f'<!DOCTYPE x [<!ENTITY a "{"A" * 50_000}">]><x>{"&a;" * 2000}</x>',
            f'<!DOCTYPE x [<!ENTITY s SYSTEM "file://{stock.secret}">]><x>&s;</x>',
            f'<!DOCTYPE x SYSTEM "{address}x.dtd"><x/>',
            f'<!DOCTYPE x [<!ENTITY % p SYSTEM "{address}p"> %p;]><x/>',
            f'<x xmlns:xi="http://www.w3.org/2001/XInclude"><xi:include parse="text" href="file://{stock.secret}"/></x>',
            f'<x xmlns:d="http://purl.org/dc/terms/" d:provenance="{address}m.c2pa"/>',
            "<x>" * 9000 + "</x>" * 9000,
            "<x " + " ".join(f'a{i}="1"' for i in range(5000)) + "/>",
            '<?xml version="1.0" encoding="utf-7"?><x/>',
            "\ufeff" + "<x" * 10_000,
        )
    )
    format = rng.choice(FORMATS)
    return with_part(stock.plain[format], format, "xmp", xml.encode())


def poisoned_xmp(rng: Random, stock: Stock) -> bytes:
    """Labels whose values steer terminals and pages, or are of absurd size."""
    xml_safe = "".join(f"&#{ord(c)};" for c in POISON if c in "\t\n\r" or ord(c) >= 32)
    value = rng.choice((xml_safe, "A" * 40_000, "&#x202e;" * 999, "&lt;script&gt;", xml_safe * 20))
    label = json.dumps({"Label": POISON, "ContentProducer": POISON * rng.choice((1, 300)), "ProduceID": "&"})
    escaped = label.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    nested = "[" * 20_000
    aigc = rng.choice((escaped, nested, value, "{" * 5000, "[1e999999]", "9" * 5000))
    spaces = (IPTC[1:].split("}")[0], AIGC[1:].split("}")[0])
    one = f'<r xmlns:i="{spaces[0]}" xmlns:g="{spaces[1]}" i:DigitalSourceType="{value}" g:AIGC="{aigc}"/>'
    xml = one if rng.random() < 0.7 else f"<x>{one * 150}</x>"
    format = rng.choice(FORMATS)
    return with_part(stock.plain[format], format, "xmp", xml.encode()[:900_000])


def absurd_exif(rng: Random, stock: Stock) -> bytes:
    """Directories that point at themselves, at everything, at nothing; and orientations that there are not."""
    order = rng.choice("<>")
    num = rng.choice((1, 100, 5000, 65535))
    entries = b"".join(
        struct.pack(
            order + "HHII", tag & 0xFFFF, rng.choice((1, 2, 3, 5, 7, 12, 99)), rng.choice((1, 60_000, 2**32 - 1)), 8
        )
        for tag in range(min(num, 5000))
    )
    turned = struct.pack(order + "HHIHH", 0x0112, 3, 1, rng.choice((0, 6, 9, 65535)), 0)
    start = rng.choice((8, 8, 8, 0, 2**32 - 1))
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", start)
    tiff = head + struct.pack(order + "H", num) + turned + entries + struct.pack(order + "I", 8)
    format = rng.choice(FORMATS)
    if format == "jpeg" and rng.random() < 0.5:
        tiff += bytes(65_000)
        several = [segment(0xE1, b"Exif\0\0" + tiff[at : at + 65_000]) for at in range(0, len(tiff), 65_000)]
        data = stock.plain["jpeg"]
        return data[:2] + b"".join(several * rng.choice((1, 40))) + segment(0xE2, b"MPF\0" + tiff[:60_000]) + data[2:]
    return with_part(stock.plain[format], format, "exif", tiff)


def animated(rng: Random, stock: Stock) -> bytes:
    """WebP of thousands of frames, and PNG that declares as many."""
    num = rng.choice((500, 5000, 30_000))
    if rng.random() < 0.5:
        declared = png_chunk(b"acTL", struct.pack(">II", num, 0))
        frame = png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 160, 160, 0, 0, 1, 1, 0, 0))
        return stock.plain["png"][:33] + declared + frame * rng.choice((1, num)) + stock.plain["png"][33:]
    if rng.random() < 0.3:
        frames = [PIL.Image.new("RGB", (16, 16), (i % 256, 0, 0)) for i in range(300)]
        stream = io.BytesIO()
        frames[0].save(stream, "WEBP", save_all=True, append_images=frames[1:])
        return stream.getvalue()
    stream = io.BytesIO()
    PIL.Image.new("RGB", (16, 16)).save(stream, "WEBP", lossless=True)
    picture = stream.getvalue()[12:]
    frame = bytes(6) + (15).to_bytes(3, "little") * 2 + (10).to_bytes(3, "little") + b"\0" + picture
    side = rng.choice((15, 6999, 2**24 - 1)).to_bytes(3, "little")
    head = (b"VP8X", bytes([2, 0, 0, 0]) + side * 2)
    return riff(head, (b"ANIM", bytes(6)), *[(b"ANMF", frame)] * num)


def strange_shape(rng: Random, stock: Stock) -> bytes:
    """Nothing, one pixel, lines, combs, depths and colours that are rare."""
    kinds = rng.randrange(8)
    if kinds == 0:
        return b""
    width, height = rng.choice(
        ((1, 1), (1, 32768), (32768, 1), (16000, 2), (3, 9000), (2, 2), (127, 129), (128, 32768))
    )
    if kinds == 1 and max(width, height) <= 16383:
        return encode(Image(np.zeros((height, width, 3), np.uint8)), "webp")
    if kinds == 2:
        return encode(Image(np.full((height, width, 1), 255, np.uint8)), "jpeg")
    mode = rng.choice(("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"))
    stream = io.BytesIO()
    picture = PIL.Image.new(mode, (width, height))
    if mode == "P":
        picture.info["transparency"] = 0
    picture.save(stream, "JPEG" if mode == "CMYK" else "PNG")
    return stream.getvalue()


def large(rng: Random, stock: Stock) -> bytes:
    """Pictures just below the limits, in few bytes: honest work, which must stay bounded."""
    width, height = rng.choice(((7000, 7100), (32768, 1500), (1500, 32768), (5000, 5000)))
    mode = rng.choice(("L", "RGB", "RGBA", "P", "I;16"))
    stream = io.BytesIO()
    picture = PIL.Image.new(mode, (width, height))
    if rng.random() < 0.3 and mode in ("L", "RGB"):
        picture.save(stream, "JPEG", progressive=rng.random() < 0.5)
    else:
        picture.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def nested_credentials(rng: Random, stock: Stock) -> bytes:
    """Credential stores of nested boxes, deep CBOR, lengths that lie, and sound ones with one part replaced."""
    kind, inner = rng.randrange(8), b""
    if kind == 0:
        for _ in range(rng.choice((50, 2000))):
            inner = described(b"c2ma", b"m", inner)
    elif kind == 1:
        inner = box(b"cbor", rng.choice((b"\x81", b"\xa1\x00", b"\xd2", b"\x9f", b"\x5f")) * rng.choice((100, 50_000)))
    elif kind == 2:
        inner = box(b"jumb", b"x" * 40, length=rng.choice((0, 1, 7, 2**32 - 1, 2**31)))
    elif kind == 3:
        inner = described(
            b"c2cl", b"c2pa.claim", box(b"cbor", b"\x9b" + b"\xff" * 8), box(b"cbor", b"\xbb" + b"\xff" * 8)
        )
    elif kind == 4:
        inner = box(b"free", b"") * 20_000
    elif kind == 5:
        inner = described(b"c2ma", POISON.replace("\0", "").encode(), described(b"c2as", b"c2pa.assertions"))
    else:
        return _changed_store(rng, stock)
    format = rng.choice(FORMATS)
    return with_part(stock.plain[format], format, "c2pa", described(b"c2pa", b"c2pa", inner))


def _changed_store(rng: Random, stock: Stock) -> bytes:
    """A sound store whose lengths and values are overwritten here and there, its container kept sound."""
    data = rng.choice(stock.marked["png"])
    carrier = next(part for part in parts(data, "png") if part.kind == "caBX")
    store = bytearray(carrier.carried(data))
    for _ in range(rng.choice((1, 1, 4))):
        at = rng.randrange(len(store) - 8)
        value = rng.choice((bytes(4), b"\xff" * 4, rng.randbytes(4), b"\x81" * 8, b"<i>\x1b", b"\x9b\xff\xff\xff"))
        store[at : at + len(value)] = value
    return data[: carrier.start] + png_chunk(b"caBX", bytes(store)) + data[carrier.stop :]


def stranger(rng: Random, stock: Stock) -> bytes:
    """Valid signatures of a stranger whose every name is poison; sometimes labelled or cut as well."""
    data = rng.choice(stock.poisoned)
    if rng.random() < 0.2:
        return data[: rng.randrange(len(data))]
    if rng.random() < 0.3:
        data = bytearray(data)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


Maker = Callable[[Random, Stock], bytes]
# How many of a thousand files are of each kind.
PICTURES: dict[Maker, int] = {
    truncated: 163,
    flipped: 110,
    flipped_marked: 110,
    spliced: 60,
    other_file: 60,
    huge: 60,
    deflate_bomb: 40,
    many_parts: 60,
    many_scans: 8,
    xml_bomb: 70,
    poisoned_xmp: 60,
    absurd_exif: 60,
    animated: 15,
    strange_shape: 50,
    large: 4,
    nested_credentials: 60,
    stranger: 30,
}


# -- folders and archives ----------------------------------------------------------------------------------------------


def small_picture(rng: Random) -> bytes:
    return encode(Image(np.frombuffer(rng.randbytes(768), np.uint8).reshape(16, 16, 3)), "png")


def sound_zip(path: Path, rng: Random, num: int = 40) -> zipfile.ZipFile:
    """An open zip with sound pictures in it, so that only what is added is at fault."""
    archive = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)
    for i in range(num):
        archive.writestr(f"{i % 2}/sound{i:04d}.png", small_picture(rng))
    return archive


def zip_leaving(rng: Random, stock: Stock, path: Path) -> None:
    name = rng.choice(
        ("../owned.png", "a/../../owned.png", "/tmp/owned.png", "..\\owned.png", "C:\\owned.png", "\\\\h\\owned.png")
    )
    with sound_zip(path, rng) as archive:
        archive.writestr(name, small_picture(rng))


def zip_linking(rng: Random, stock: Stock, path: Path) -> None:
    with sound_zip(path, rng) as archive:
        link = zipfile.ZipInfo("link.png")
        link.external_attr = rng.choice((0o120777, 0o010644, 0o020644, 0o060644)) << 16
        archive.writestr(link, rng.choice((str(stock.secret), "../../etc/passwd", "/dev/zero")))


def zip_bomb(rng: Random, stock: Stock, path: Path) -> None:
    """Members that inflate a thousandfold; one in the other; sizes that lie."""
    kind = rng.randrange(4)
    with sound_zip(path, rng, 4) as archive:
        if kind == 0:
            archive.writestr("bomb.png", bytes(600 * 2**20))
        elif kind == 1:
            for i in range(40):
                archive.writestr(f"bomb{i}.png", bytes(40 * 2**20))
        elif kind == 2:
            inner = io.BytesIO()
            with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as nested:
                nested.writestr("bomb.png", bytes(100 * 2**20))
            archive.writestr("nested.zip", inner.getvalue())
            archive.writestr("nested.png", inner.getvalue())
        else:
            archive.writestr("dataset.json", b'{"labels": [' + b"[]," * (20 * 2**20) + b"[]]}")
    if kind == 0 and rng.random() < 0.5:  # the declared size lies
        data = path.read_bytes().replace(struct.pack("<I", 600 * 2**20), struct.pack("<I", 1000))
        path.write_bytes(data)


def zip_overlapping(rng: Random, stock: Stock, path: Path) -> None:
    """Many entries of the directory that share one member (Fifield 2019), and a member that holds its own archive."""
    with sound_zip(path, rng, 3) as archive:
        archive.writestr("kernel.png", bytes(20 * 2**20))
    data = path.read_bytes()
    end = data.rindex(b"PK\5\6")
    size, start = struct.unpack_from("<II", data, end + 12)
    directory = data[start : start + size]
    last = directory[directory.rindex(b"PK\1\2") :]
    times = rng.choice((10, 3000))
    more = b"".join(last.replace(b"kernel", b"k%05d" % i) for i in range(times))
    num = struct.unpack_from("<H", data, end + 10)[0] + times
    tail = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, num, num, size + len(more), start, 0)
    path.write_bytes(data[:start] + directory + more + tail)


def zip_many(rng: Random, stock: Stock, path: Path) -> None:
    """A directory of many members, or one that only says so."""
    if rng.random() < 0.5:
        with zipfile.ZipFile(path, "w") as archive:
            for i in range(rng.choice((3000, 40_000))):
                archive.writestr(f"{i}.png", b"")
        return
    sound_zip(path, rng).close()
    data = bytearray(path.read_bytes())
    end = bytes(data).rindex(b"PK\5\6")
    field = rng.choice((8, 10, 12, 16, 20))
    data[end + field : end + field + 2] = b"\xff\xff"
    path.write_bytes(data)


def zip_damaged(rng: Random, stock: Stock, path: Path) -> None:
    sound_zip(path, rng).close()
    data = bytearray(path.read_bytes())
    if rng.random() < 0.3:
        data = data[: rng.randrange(len(data))]
    for _ in range(rng.choice((0, 1, 5, 50))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(data) + rng.randbytes(rng.choice((0, 0, 100))))


def zip_poisoned(rng: Random, stock: Stock, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with sound_zip(path, rng, rng.choice((0, 20))) as archive:
            for _ in range(3):
                name = rng.choice(NAMES).encode("utf-8", "replace").decode()
                archive.writestr(name, rng.choice((b"no picture", small_picture(rng))))


def zip_labels(rng: Random, stock: Stock, path: Path) -> None:
    """dataset.json that is deep, poisoned, of another shape, or full of absurd numbers."""
    names = [f"{i % 2}/sound{i:04d}.png" for i in range(40)]
    good = [[name, i % 2] for i, name in enumerate(names)]
    label = rng.choice((10**30, -1, 99_999, 1e308, None, POISON, [], {}, True, 0.5, float("nan"), "7" * 5000))
    document = rng.choice(
        (
            "[" * 200_000,
            '{"labels":' * 50_000,
            json.dumps({"labels": [*good[:-1], [names[-1], label]]}),
            json.dumps({"labels": label}),
            json.dumps({POISON: POISON, "labels": [[POISON, 0]]}),
            json.dumps({"labels": good * 2000}),
            '{"labels": [["a", ' + "9" * 100_000 + "]]}",
            POISON,
            "\x00\xff",
            "null",
        )
    )
    with sound_zip(path, rng) as archive:
        archive.writestr("dataset.json", document.encode("utf-8", "replace"))
        if rng.random() < 0.2:
            archive.writestr("dataset.json ", b"{}")


def sound_tar(path: Path, rng: Random, num: int = 40) -> tarfile.TarFile:
    """An open shard with sound samples in it, with classes or without."""
    archive, labelled = tarfile.TarFile(path, "w", errors="surrogateescape"), rng.random() < 0.5
    for i in range(num):
        tar_member(archive, f"{i:04d}.png", small_picture(rng))
        if labelled:
            tar_member(archive, f"{i:04d}.cls", str(i % 2).encode())
    return archive


def tar_member(archive: tarfile.TarFile, name: str, data: bytes, **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    archive.addfile(info, io.BytesIO(data))


def tar_strange(rng: Random, stock: Stock, path: Path) -> None:
    """Members that leave, link, are devices or holes, share a key, have hostile names, or headers without end."""
    types = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE, b"Z")
    with sound_tar(path, rng) as archive:
        match rng.randrange(5):
            case 0:
                tar_member(archive, rng.choice(("../owned.png", "/tmp/owned.png", "C:\\owned.png")), small_picture(rng))
            case 1:
                tar_member(archive, "x.png", b"", type=rng.choice(types), linkname=str(stock.secret))
            case 2:
                tar_member(archive, rng.choice(NAMES), rng.choice((b"no picture", small_picture(rng))))
            case 3:
                kind = rng.choice((tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME))
                header = rng.choice((b"9" * 4000, b"9" * 10**6, b"30 GNU.sparse.map=1,1,1,1,1,1\n", b"13 size=-512\n"))
                for _ in range(rng.choice((1, 2000))):
                    tar_member(archive, "x", header, type=kind)
                tar_member(archive, "x.png", small_picture(rng))
            case 4:
                tar_member(archive, "0001.jpg", small_picture(rng))


def tar_damaged(rng: Random, stock: Stock, path: Path) -> None:
    sound_tar(path, rng).close()
    data = bytearray(path.read_bytes())
    if rng.random() < 0.3:
        data = data[: rng.randrange(len(data))]
    for _ in range(rng.choice((0, 1, 5, 50)) if data else 0):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(rng.choice((bytes, gzip.compress))(bytes(data)))


def tar_labels(rng: Random, stock: Stock, path: Path) -> None:
    label = rng.choice(("-1", "99999", "9" * 100_000, POISON, "\x00\xff", "", "1e3", "[" * 100_000, '{"label": true}'))
    with sound_tar(path, rng) as archive:
        tar_member(archive, "x.png", small_picture(rng))
        tar_member(archive, rng.choice(("x.cls", "x.json")), label.encode("utf-8", "replace"))


def folder_linking(rng: Random, stock: Stock, path: Path) -> None:
    """Links that leave, that go round, that lead nowhere."""
    path.mkdir()
    for i in range(40):
        (path / f"{i}.png").write_bytes(small_picture(rng))
    target = rng.choice(
        (stock.secret, stock.secret.parent, Path("loop.png"), Path("nowhere.png"), path, path.parent, "/")
    )
    os.symlink(target, path / rng.choice(("loop.png", "loop")))


def folder_strange(rng: Random, stock: Stock, path: Path) -> None:
    """Things that are no files, deep paths, poisoned names, empty files."""
    path.mkdir()
    for i in range(40):
        (path / f"{i}.png").write_bytes(small_picture(rng))
    kind = rng.randrange(5)
    if kind == 0:
        os.mkfifo(path / "pipe.png")
    elif kind == 1:
        (path / "folder.png").mkdir()
        (path / "folder.png" / "in.png").write_bytes(small_picture(rng))
    elif kind == 2:
        (path / "empty.png").touch()
    elif kind == 3:
        deep = path.joinpath(*["d" * 60] * 40)
        deep.mkdir(parents=True)
        (deep / "deep.png").write_bytes(small_picture(rng))
    else:
        for name in rng.sample(NAMES, 5):
            (path / name).write_bytes(rng.choice((b"", b"no picture", small_picture(rng))))


SOURCES: dict[Callable[[Random, Stock, Path], None], int] = {
    zip_leaving: 10,
    zip_linking: 10,
    zip_bomb: 12,
    zip_overlapping: 10,
    zip_many: 10,
    zip_damaged: 50,
    zip_poisoned: 20,
    zip_labels: 35,
    tar_strange: 40,
    tar_damaged: 40,
    tar_labels: 15,
    folder_linking: 15,
    folder_strange: 25,
}
