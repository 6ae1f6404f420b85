"""How PNG, JPEG, WebP and MP4 files are laid out, strictly: their parts, the metadata in them, and putting metadata in.

PNG: ISO/IEC 15948. JPEG: ITU-T T.81 annex B, XMP in APP1 (ISO 16684-3), C2PA in APP11 (ISO 19566-5). WebP: RFC 9649.
MP4: ISO/IEC 14496-12, XMP in a box of its own at the top (ISO 16684-3).
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

from countermark.core.bmff import Misfit, boxes

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
XMP_APP1 = b"http://ns.adobe.com/xap/1.0/\0"
XMP_KEYWORD = b"XML:com.adobe.xmp"
XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
MAX_PARTS = 100_000
MAX_XMP_BYTES = 2**20
MAX_XMP_PACKETS = 16
_XMP_MARKS = {"png": XMP_KEYWORD, "jpeg": XMP_APP1, "webp": b"XMP ", "mp4": XMP_UUID}
_VP8X_XMP, _VP8X_ALPHA = 0x04, 0x10
_MAX_APP1_BODY = 65533
_AFTER_FILL = re.compile(rb"[^\xff]")
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7]")


class Malformed(ValueError):
    """The file does not hold to its format; the text says where."""


@dataclass(frozen=True)
class Part:
    """One chunk or segment: the whole of it is data[start:stop], what it carries is data[body:body_stop]."""

    kind: str
    start: int
    body: int
    body_stop: int
    stop: int

    def carried(self, data: bytes) -> bytes:
        """The bytes that the part carries."""
        return data[self.body : self.body_stop]


def parts(data: bytes, container: str) -> list[Part]:
    """Every part of a file in order, up to the end of the picture. Raises Malformed.

    `container`: 'png', 'jpeg', 'webp' or 'mp4'. JPEG parts are named by their marker in hexadecimal ('eb' is APP11);
    those of MP4 are its boxes at the top.
    """
    found = {"png": _png_parts, "jpeg": _jpeg_parts, "webp": _webp_parts, "mp4": _mp4_parts}[container](data)
    if len(found) > MAX_PARTS:
        raise Malformed(f"more than {MAX_PARTS} parts")
    return found


def _png_parts(data: bytes) -> list[Part]:
    if not data.startswith(PNG_SIGNATURE):
        raise Malformed("no PNG signature")
    found: list[Part] = []
    position = len(PNG_SIGNATURE)
    while True:
        if position + 12 > len(data):
            raise Malformed("PNG ends inside a chunk")
        length = int.from_bytes(data[position : position + 4], "big")
        body, body_stop = position + 8, position + 8 + length
        if length > 2**31 - 1 or body_stop + 4 > len(data):
            raise Malformed("a PNG chunk is longer than the file")
        kind = data[position + 4 : position + 8]
        if zlib.crc32(data[position + 4 : body_stop]) != int.from_bytes(data[body_stop : body_stop + 4], "big"):
            raise Malformed(f"checksum of PNG chunk {kind.decode('latin-1')!r} does not match")
        found.append(Part(kind.decode("latin-1"), position, body, body_stop, body_stop + 4))
        position = body_stop + 4
        if kind == b"IEND":
            return found
        if len(found) > MAX_PARTS:
            raise Malformed(f"more than {MAX_PARTS} PNG chunks")


def _jpeg_parts(data: bytes) -> list[Part]:
    if not data.startswith(b"\xff\xd8"):
        raise Malformed("no JPEG start of image")
    found = [Part("d8", 0, 2, 2, 2)]
    position = 2
    while True:
        if position + 2 > len(data) or data[position] != 0xFF:
            raise Malformed("JPEG marker expected")
        marker = data[position + 1]
        if marker == 0xFF:  # fill bytes, of which any number may stand before a marker (B.1.1.2)
            position = _next(_AFTER_FILL, data, position) - 1
            marker = data[position + 1]
        if marker == 0xD9:
            found.append(Part("d9", position, position + 2, position + 2, position + 2))
            return found
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            raise Malformed(f"JPEG marker {marker:02x} out of place")
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        body_stop = position + 2 + length
        if length < 2 or body_stop > len(data):
            raise Malformed("a JPEG segment is longer than the file")
        stop = _end_of_scan(data, body_stop) if marker == 0xDA else body_stop
        found.append(Part(f"{marker:02x}", position, position + 4, body_stop, stop))
        position = stop
        if len(found) > MAX_PARTS:
            raise Malformed(f"more than {MAX_PARTS} JPEG segments")


def _end_of_scan(data: bytes, position: int) -> int:
    """Where entropy-coded data end: the next marker that is neither a stuffed byte nor a restart."""
    return _next(_AFTER_SCAN, data, position)


def _next(pattern: re.Pattern[bytes], data: bytes, position: int) -> int:
    found = pattern.search(data, position)
    if found is None:
        raise Malformed("JPEG ends before its end of image")
    return found.start()


def _webp_parts(data: bytes) -> list[Part]:
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise Malformed("no RIFF WEBP header")
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data) or end % 2:
        raise Malformed("RIFF size does not fit the file")
    found: list[Part] = []
    position = 12
    while position < end:
        if position + 8 > end:
            raise Malformed("RIFF ends inside a chunk header")
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        body_stop = position + 8 + length
        stop = body_stop + length % 2
        if stop > end:
            raise Malformed("a RIFF chunk is longer than the file")
        if data[body_stop:stop].strip(b"\0"):
            raise Malformed("RIFF chunk padding is not zero")
        found.append(Part(data[position : position + 4].decode("latin-1"), position, position + 8, body_stop, stop))
        position = stop
        if len(found) > MAX_PARTS:
            raise Malformed(f"more than {MAX_PARTS} RIFF chunks")
    if not found:
        raise Malformed("an empty RIFF file")
    return found


def _mp4_parts(data: bytes) -> list[Part]:
    try:
        return [Part(b.kind.decode("latin-1"), b.start, b.body, b.stop, b.stop) for b in boxes(data, 0, len(data))]
    except Misfit as error:
        raise Malformed(str(error)) from error


def xmp_packets(data: bytes, container: str) -> list[bytes]:
    """Every XMP packet of a file, unparsed. Raises Malformed, also for more than MAX_XMP_BYTES once inflated."""
    packets: list[bytes] = []
    if _XMP_MARKS[container] not in data:
        return packets
    for part in parts(data, container):
        packet = {"png": _png_xmp, "jpeg": _jpeg_xmp, "webp": _webp_xmp, "mp4": _mp4_xmp}[container](data, part)
        if packet is None:
            continue
        packets.append(packet)
        if sum(map(len, packets)) > MAX_XMP_BYTES or len(packets) > MAX_XMP_PACKETS:
            raise Malformed(f"XMP is over the limit of {MAX_XMP_BYTES} bytes in {MAX_XMP_PACKETS} packets")
    return packets


def _png_xmp(data: bytes, part: Part) -> bytes | None:
    if part.kind != "iTXt" or not data.startswith(XMP_KEYWORD + b"\0", part.body):
        return None
    flag_at = part.body + len(XMP_KEYWORD) + 1
    head = data[flag_at : flag_at + 2]
    language_stop = data.find(b"\0", flag_at + 2, part.body_stop)
    translated_stop = data.find(b"\0", language_stop + 1, part.body_stop)
    if len(head) < 2 or language_stop < 0 or translated_stop < 0:
        raise Malformed("an iTXt chunk without its fields")
    text = data[translated_stop + 1 : part.body_stop]
    return _inflate(text) if head[0] else text


def _inflate(deflated: bytes) -> bytes:
    inflater = zlib.decompressobj()
    try:
        return inflater.decompress(deflated, MAX_XMP_BYTES + 1)
    except zlib.error as error:
        raise Malformed("XMP cannot be inflated") from error


def _jpeg_xmp(data: bytes, part: Part) -> bytes | None:
    if part.kind != "e1" or not data.startswith(XMP_APP1, part.body):
        return None
    return data[part.body + len(XMP_APP1) : part.body_stop]


def _webp_xmp(data: bytes, part: Part) -> bytes | None:
    return part.carried(data) if part.kind == "XMP " else None


def _mp4_xmp(data: bytes, part: Part) -> bytes | None:
    if part.kind != "uuid" or not data.startswith(XMP_UUID, part.body):
        return None
    return data[part.body + len(XMP_UUID) : part.body_stop]


def with_xmp(data: bytes, container: str, packet: bytes, size: tuple[int, int]) -> bytes:
    """A copy of a file with one XMP packet added; the pixels are not touched.

    `size`: (width, height), which an extended WebP header repeats. Raises Malformed when the file has XMP already.
    """
    if xmp_packets(data, container):
        raise Malformed("the file has XMP already")
    if container == "png":
        return _with_png_xmp(data, packet)
    if container == "jpeg":
        return _with_jpeg_xmp(data, packet)
    if container == "mp4":
        return _with_mp4_xmp(data, packet)
    return _with_webp_xmp(data, packet, size)


def _with_png_xmp(data: bytes, packet: bytes) -> bytes:
    typed = b"iTXt" + XMP_KEYWORD + b"\0" + b"\0\0" + b"\0" + b"\0" + packet
    chunk = struct.pack(">I", len(typed) - 4) + typed + struct.pack(">I", zlib.crc32(typed))
    after_header = parts(data, "png")[0].stop
    return data[:after_header] + chunk + data[after_header:]


def _with_jpeg_xmp(data: bytes, packet: bytes) -> bytes:
    body = XMP_APP1 + packet
    if len(body) > _MAX_APP1_BODY:
        raise Malformed(f"XMP of {len(packet)} bytes does not fit one JPEG segment")
    segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    found = parts(data, "jpeg")
    place = found[1].stop if found[1].kind == "e0" else found[0].stop
    return data[:place] + segment + data[place:]


def _with_webp_xmp(data: bytes, packet: bytes, size: tuple[int, int]) -> bytes:
    found = parts(data, "webp")
    chunks = data[found[0].start : found[-1].stop]
    if found[0].kind == "VP8X":
        flags = data[found[0].body] | _VP8X_XMP
        chunks = chunks[:8] + bytes([flags]) + chunks[9:]
    else:
        alpha = found[0].kind == "VP8L" and bool(data[found[0].body + 4] & 0x10)
        flags = _VP8X_XMP | (_VP8X_ALPHA if alpha else 0)
        width, height = ((side - 1).to_bytes(3, "little") for side in size)
        chunks = _riff_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + width + height) + chunks
    body = b"WEBP" + chunks + _riff_chunk(b"XMP ", packet)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _with_mp4_xmp(data: bytes, packet: bytes) -> bytes:
    """At the end, where no table of offsets minds."""
    body = b"uuid" + XMP_UUID + packet
    return data + struct.pack(">I", len(body) + 4) + body


def _riff_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
