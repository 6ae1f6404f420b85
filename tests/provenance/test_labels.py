import json
import struct
import zlib

import numpy as np
import pytest

from countermark.core.errors import CountermarkError
from countermark.core.media import Image, decode_image
from countermark.provenance import labels
from countermark.provenance.containers import MAX_XMP_BYTES, with_xmp
from countermark.provenance.credentials import EDITED, MADE
from countermark.provenance.encode import encode

FORMATS = ("png", "jpeg", "webp")
SIZE = (24, 16)
PICTURE = Image(np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8))
GOOD = {
    "Label": "1",
    "ContentProducer": "001191110000MA0000000X",
    "ProduceID": "a1b2",
    "ReservedCode1": "",
    "ContentPropagator": "",
    "PropagateID": "",
    "ReservedCode2": "",
}
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:TC260="http://www.tc260.org.cn/ns/AIGC/1.0/" '
    'xmlns:I="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">{}</rdf:Description></rdf:RDF></x:xmpmeta>'
)


def aigc(text: str) -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    return f"<TC260:AIGC>{escaped}</TC260:AIGC>"


def with_packet(format: str, body: str) -> bytes:
    return with_xmp(encode(PICTURE, format), format, XMP.format(body).encode(), SIZE)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("value", [MADE, EDITED])
def test_iptc_is_written_and_read_without_touching_pixels(format, value):
    plain = encode(PICTURE, format)
    labelled = labels.write(plain, format, value, SIZE)
    assert labels.read(labelled, format)["iptc"] == {"present": True, "value": value}
    assert labels.read(plain, format)["iptc"] == {"present": False, "value": None}
    assert np.array_equal(decode_image(labelled).samples, decode_image(plain).samples)


@pytest.mark.parametrize("format", FORMATS)
def test_pillow_finds_the_label_where_readers_look(format):
    import io

    import PIL.Image

    with PIL.Image.open(io.BytesIO(labels.write(encode(PICTURE, format), format, MADE, SIZE))) as picture:
        xmp = picture.info.get("xmp") or picture.info["XML:com.adobe.xmp"].encode()
    assert MADE.encode() in xmp


@pytest.mark.parametrize("format", FORMATS)
def test_a_second_label_is_refused(format):
    with pytest.raises(CountermarkError, match="already"):
        labels.write(labels.write(encode(PICTURE, format), format, MADE, SIZE), format, MADE, SIZE)


@pytest.mark.parametrize("format", FORMATS)
def test_element_and_resource_forms_are_read_and_two_values_are_none(format):
    one = f'<I:DigitalSourceType rdf:resource="{MADE}"/>'
    text = f"<I:DigitalSourceType>{EDITED}</I:DigitalSourceType>"
    assert labels.read(with_packet(format, one), format)["iptc"]["value"] == MADE
    assert labels.read(with_packet(format, text), format)["iptc"]["value"] == EDITED
    assert labels.read(with_packet(format, one + text), format)["iptc"] == {"present": True, "value": None}


@pytest.mark.parametrize("format", FORMATS)
def test_a_good_gb45438_label_is_valid(format):
    read = labels.read(with_packet(format, aigc(json.dumps(GOOD))), format)["gb45438"]
    assert read == {"present": True, "valid": True, "fields": GOOD, "reasons": []}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (json.dumps(dict(reversed(GOOD.items()))), "in this order"),
        (json.dumps({**GOOD, "Extra": "x"}), "in this order"),
        (json.dumps({**GOOD, "Label": "4"}), "Label is not"),
        (json.dumps({**GOOD, "Label": 1}), "not text"),
        (json.dumps({**GOOD, "ProduceID": ""}), "ProduceID is empty"),
        (json.dumps({**GOOD, "ProduceID": "a b"}), "0x21-0x7E"),
        (json.dumps({**GOOD, "ContentProducer": "生成"}), "0x21-0x7E"),
        (json.dumps([GOOD]), "JSON object"),
        ("eyJMYWJlbCI6IjEifQ==", "plain JSON"),
        ("", "plain JSON"),
        ("[" * 4000, "plain JSON"),
        (json.dumps(GOOD)[:-1] + ', "Label": "2"}', "in this order"),
    ],
)
def test_a_wrong_gb45438_label_says_why(text, reason):
    read = labels.read(with_packet("png", aigc(text)), "png")["gb45438"]
    assert read["present"]
    assert not read["valid"]
    assert any(reason in line for line in read["reasons"])


def test_two_gb45438_labels_are_invalid():
    read = labels.read(with_packet("jpeg", aigc(json.dumps(GOOD)) * 2), "jpeg")["gb45438"]
    assert read["present"]
    assert not read["valid"]
    assert "exactly one" in read["reasons"][0]


def entity_bomb() -> bytes:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    return f'<!DOCTYPE x [<!ENTITY e0 "ha">{entities}]><x>&e11;</x>'.encode()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "packet",
    [
        entity_bomb(),
        b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>',
        b"<a>" * 15000,
        b"<a>" * 7000 + b"</a>" * 7000,
        b"\xff\xfe\x00",
        b"",
        b'<?xml version="1.0" encoding="none"?><a/>',
    ],
)
def test_hostile_xmp_is_no_label_and_no_error(format, packet):
    data = with_xmp(encode(PICTURE, format), format, packet, SIZE)
    read = labels.read(data, format)
    assert not read["iptc"]["present"]
    assert not read["gb45438"]["present"]


def png_with(kind: bytes, body: bytes) -> bytes:
    data = encode(PICTURE, "png")
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return data[:33] + chunk + data[33:]


def test_compressed_xmp_is_read_within_the_limit():
    packet = XMP.format(f"<I:DigitalSourceType>{MADE}</I:DigitalSourceType>").encode()
    head = b"XML:com.adobe.xmp\0\1\0\0\0"
    assert labels.read(png_with(b"iTXt", head + zlib.compress(packet)), "png")["iptc"]["value"] == MADE
    bomb = zlib.compress(b" " * (200 * MAX_XMP_BYTES))
    read = labels.read(png_with(b"iTXt", head + bomb), "png")
    assert "over the limit" in read["gb45438"]["reasons"][0]
    assert not read["iptc"]["present"]


@pytest.mark.parametrize("format", FORMATS)
def test_no_truncation_raises(format):
    data = labels.write(encode(PICTURE, format), format, MADE, SIZE)
    for stop in range(0, len(data), 7):
        labels.read(data[:stop], format)
