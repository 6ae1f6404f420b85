"""Metadata labels: the IPTC digital source type, and the implicit label of GB 45438-2025, as XMP in the file.

Both are claims that anybody can write; only the credentials are signed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from countermark.core.errors import CountermarkError
from countermark.provenance.containers import Malformed, with_xmp, xmp_packets

IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
AIGC = "{http://www.tc260.org.cn/ns/AIGC/1.0/}AIGC"
_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
GB45438_FIELDS = (
    *("Label", "ContentProducer", "ProduceID", "ReservedCode1"),
    *("ContentPropagator", "PropagateID", "ReservedCode2"),
)
_REQUIRED = GB45438_FIELDS[:3]
_KINDS_OF_LABEL = ("1", "2", "3")  # AI, possibly, suspected
_MAX_LABELS = 100
_MAX_TEXT = 4096
_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
   Iptc4xmpExt:DigitalSourceType="{source_type}"/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


def write(data: bytes, container: str, source_type: str, size: tuple[int, int]) -> bytes:
    """A copy of an encoded file with the IPTC label `source_type` (an address of the IPTC's vocabulary).

    size: (width, height). Raises CountermarkError when the file is labelled already: a file carries one label.
    """
    try:
        return with_xmp(data, container, _PACKET.format(source_type=source_type).encode("utf-8"), size)
    except Malformed as error:
        raise CountermarkError(f"cannot label the file: {error}") from error


def read(data: bytes, container: str) -> dict[str, Any]:
    """The labels of a file in the shape of `verify --json`: {gb45438: {...}, iptc: {...}}. Never raises.

    A value that is not the only one of its sort is None (iptc) or invalid (gb45438): a file carries one label.
    """
    found: dict[str, list[str]] = {IPTC: [], AIGC: []}
    problems = []
    try:
        for packet in xmp_packets(data, container):
            for name, value in _properties(packet):
                if len(found[name]) < _MAX_LABELS:
                    found[name].append(value)
    except (Malformed, _BadXMP) as error:
        problems.append(str(error))
    return {"gb45438": _gb45438(found[AIGC], problems), "iptc": _iptc(found[IPTC])}


class _BadXMP(ValueError):
    pass


def _properties(packet: bytes) -> Iterator[tuple[str, str]]:
    for element in _parsed(packet).iter():
        for name in (IPTC, AIGC):
            if name in element.attrib:
                yield name, element.attrib[name][:_MAX_TEXT]
            if element.tag == name:
                yield name, (element.get(f"{_RDF}resource") or element.text or "").strip()[:_MAX_TEXT]


def _parsed(packet: bytes) -> Element:
    import defusedxml
    import defusedxml.ElementTree

    try:
        return defusedxml.ElementTree.fromstring(packet.strip(b"\0 \r\n\t"), forbid_dtd=True)
    except (ParseError, defusedxml.DefusedXmlException, ValueError, LookupError, RecursionError) as error:
        raise _BadXMP(f"XMP cannot be read ({type(error).__name__})") from error


def _iptc(values: list[str]) -> dict[str, Any]:
    return {"present": bool(values), "value": values[0] if len(values) == 1 else None}


def _gb45438(values: list[str], problems: list[str]) -> dict[str, Any]:
    if not values:
        return {"present": False, "valid": False, "fields": {}, "reasons": problems}
    reasons = list(problems)
    if len(values) > 1:
        reasons.append(f"{len(values)} labels; a file carries exactly one")
    fields, wrong = gb45438_fields(values[0])
    reasons += wrong
    return {"present": True, "valid": not reasons, "fields": fields, "reasons": reasons}


def gb45438_fields(text: str) -> tuple[dict[str, str], list[str]]:
    """The fields of one implicit label, and what is wrong with it, one line each (GB 45438-2025, annex)."""
    try:
        pairs = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError):
        return {}, ["the label is not plain JSON"]
    if not isinstance(pairs, list) or not pairs or not all(isinstance(pair, tuple) for pair in pairs):
        return {}, ["the label is not a JSON object"]
    reasons = []
    if tuple(name for name, _ in pairs) != GB45438_FIELDS:
        reasons.append(f"the fields are not {', '.join(GB45438_FIELDS)}, in this order")
    if not all(isinstance(value, str) for _, value in pairs):
        return {}, [*reasons, "a field is not text"]
    fields = dict(pairs)
    reasons += [f"{name} is empty" for name in _REQUIRED if not fields.get(name)]
    if any(not 0x21 <= ord(character) <= 0x7E for value in fields.values() for character in value):
        reasons.append("a field has characters outside 0x21-0x7E")
    if fields.get("Label") not in _KINDS_OF_LABEL:
        reasons.append("Label is not 1, 2 or 3")
    return fields, reasons
