"""The strict check of a credential store: nothing in it may be changed without being noticed.

The signature of C2PA covers the claim, the claim's hashes cover the assertions, and the data hash covers the file
around the store. That leaves what nobody hashes: the store's own box headers and descriptions, the paddings, the
unprotected header of COSE_Sign1 and the segments that carry the store. They are held to their one canonical form here.
The hash of an MP4 leaves out more (its first box, free space, indices of fragments), which is held to its usual form.

Sources: C2PA specification 2.x (manifest store, hard bindings), ISO 19566-5 (JUMBF boxes), RFC 9052 (COSE_Sign1).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from countermark.provenance import cbor
from countermark.provenance.containers import Malformed, Part, parts

MAX_STORE_BYTES = 16 * 2**20
MAX_BOXES = 10_000
_UUID_TAIL = bytes.fromhex("00110010800000aa00389b71")
_STORE_MARK = b"jumdc2pa"  # how the description of a store begins
_LABEL_ONLY = 0x03  # toggles of a description box: the box may be asked for, and has a label; nothing else
_SINGLE_BOXES = {b"c2as": ("c2pa.assertions",), b"c2cl": ("c2pa.claim", "c2pa.claim.v2"), b"c2cs": ("c2pa.signature",)}
_OPTIONAL_STORES = {b"c2vc": "c2pa.credentials", b"c2db": "c2pa.databoxes"}
_HASHES = {"sha256": hashlib.sha256, "sha384": hashlib.sha384, "sha512": hashlib.sha512}
_PADDINGS = ("pad", "pad2")
# Box instance numbers of APP11 that writers use: any number would do, and no hash covers it. No two of these differ in
# one byte only.
_USUAL_INSTANCES = (bytes.fromhex("0211"), bytes.fromhex("0001"), b"")
# In MP4: the box of the store, what stands before the store in it (version, flags, purpose, no further box), what hash
# assertions leave out, and the first boxes of FFmpeg and Android, no two of which differ in one byte only.
_UUID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
_PURPOSE = bytes(4) + b"manifest\0" + bytes(8)
_THE_STORE = {"xpath": "/uuid", "data": [{"offset": 8, "value": _UUID}]}
_LEFT_OUT = [_THE_STORE, *({"xpath": f"/{kind}"} for kind in ("ftyp", "mfra", "free", "skip"))]
_USUAL_FILE_TYPES = (b"isom\0\0\2\0isomiso2avc1mp41", b"isom\0\0\2\0isomiso2mp41", b"mp42\0\0\0\0isommp42")
_TIME_STAMPS = ("sigTst", "sigTst2")
_OTHER_UNSIGNED = ("rVals", 33, "x5chain")


class NotCanonical(ValueError):
    """The store is spelled in a way that would let a change go unnoticed; the text says where."""


@dataclass(frozen=True)
class Seal:
    """A store in canonical form. `limits`: why its file can't be trusted byte for byte even so, one line each."""

    time_stamped: bool
    limits: tuple[str, ...]


@dataclass(frozen=True)
class _Box:
    kind: bytes
    start: int
    body: int
    stop: int


@dataclass(frozen=True)
class _Superbox:
    uuid: bytes
    label: str
    inside: bytes  # everything after the box's own header: this is what C2PA hashes
    children: list[_Box]
    store: bytes

    def content(self, child: _Box) -> bytes:
        return self.store[child.body : child.stop]


@dataclass(frozen=True)
class _Carrier:
    store: bytes
    start: int
    stops: tuple[int, ...]  # where it ends; a padding byte of RIFF counts or not, as the writer will (it must be zero)
    instance: bytes = b""
    is_mp4: bool = False
    limits: tuple[str, ...] = ()  # of an MP4: what no hash covers and is not as it usually is


def has_store(data: bytes, container: str) -> bool:
    """Whether the file carries a credential store, in good order or not."""
    if _STORE_MARK not in data:
        return False
    try:
        return _carrier(data, container) is not None
    except (Malformed, NotCanonical):
        return True


def check(data: bytes, container: str) -> Seal:
    """Hold the credential store of a file to its canonical form. Raises NotCanonical, or Malformed for the container.

    `container`: 'png', 'jpeg', 'webp' or 'mp4'. The cryptography (signature, hashes, trust) is not looked at here.
    """
    carrier = _carrier(data, container)
    if carrier is None:
        raise NotCanonical("no credential store")
    if len(carrier.store) > MAX_STORE_BYTES:
        raise NotCanonical(f"credential store is over the limit of {MAX_STORE_BYTES} bytes")
    try:
        return _check_store(carrier)
    except cbor.NotDeterministic as error:
        raise NotCanonical(str(error)) from error


def _carrier(data: bytes, container: str) -> _Carrier | None:
    found = parts(data, container)
    if container == "jpeg":
        return _jpeg_carrier(data, found)
    if container == "mp4":
        return _mp4_carrier(data, found)
    kind = {"png": "caBX", "webp": "C2PA"}[container]
    carriers = [part for part in found if part.kind == kind]
    if not carriers:
        return None
    if len(carriers) > 1:
        raise NotCanonical("more than one credential store")
    stops = (carriers[0].stop, carriers[0].body_stop) if container == "webp" else (carriers[0].stop,)
    return _Carrier(carriers[0].carried(data), carriers[0].start, stops)


def _jpeg_carrier(data: bytes, found: list[Part]) -> _Carrier | None:
    """JUMBF in APP11: 'JP', box instance (2 bytes), sequence number (4), then the first box's header again (8)."""
    segments = [p for p in found if p.kind == "eb" and data[p.body : p.body + 2] == b"JP"]
    instances: dict[bytes, list[Part]] = {}
    for segment in segments:
        if segment.body_stop - segment.body < 16:
            raise NotCanonical("a JUMBF segment without its header")
        instances.setdefault(data[segment.body + 2 : segment.body + 4], []).append(segment)
    stores = [group for group in instances.values() if data[group[0].body + 16 : group[0].body + 28][4:] == _STORE_MARK]
    if not stores:
        return None
    if len(stores) > 1:
        raise NotCanonical("more than one credential store")
    return _joined(data, stores[0])


def _joined(data: bytes, group: list[Part]) -> _Carrier:
    header = data[group[0].body + 8 : group[0].body + 16]
    for number, segment in enumerate(group, start=1):
        if int.from_bytes(data[segment.body + 4 : segment.body + 8], "big") != number:
            raise NotCanonical("JUMBF segments are not numbered in order")
        if data[segment.body + 8 : segment.body + 16] != header:
            raise NotCanonical("JUMBF segments repeat different box headers")
    if any(before.stop != after.start for before, after in itertools.pairwise(group)):
        raise NotCanonical("JUMBF segments are apart")
    store = header + b"".join(data[segment.body + 16 : segment.body_stop] for segment in group)
    instance = data[group[0].body + 2 : group[0].body + 4]
    return _Carrier(store, group[0].start, (group[-1].stop,), instance)


def _mp4_carrier(data: bytes, found: list[Part]) -> _Carrier | None:
    """One box at the top, with C2PA's identifier and _PURPOSE before the store."""
    carriers = [part for part in found if part.kind == "uuid" and data.startswith(_UUID, part.body)]
    if not carriers:
        return None
    if len(carriers) > 1:
        raise NotCanonical("more than one credential store")
    head = _UUID + _PURPOSE
    if carriers[0].body != carriers[0].start + 8 or not data.startswith(head, carriers[0].body):
        raise NotCanonical("the box of the credential store says more than that it holds one")
    store = data[carriers[0].body + len(head) : carriers[0].stop]
    limits = tuple(_mp4_limits(data, found, carriers[0]))
    return _Carrier(store, carriers[0].start, (carriers[0].stop,), is_mp4=True, limits=limits)


def _mp4_limits(data: bytes, found: list[Part], carrier: Part) -> Iterator[str]:
    if found[0].kind != "ftyp" or found[0].carried(data) not in _USUAL_FILE_TYPES or found[0].body != 8:
        yield "the file's first box is unusual, and covered by no hash"
    if found[1] != carrier:
        yield "the credentials do not stand behind the file's first box"
    if any(part.kind in ("ftyp", "mfra") for part in found[1:]):
        yield "a box that no hash covers"
    free = [i for i, part in enumerate(found) if part.kind in ("free", "skip")]
    bare = all(found[i].body == found[i].start + 8 and not found[i].carried(data).strip(b"\0") for i in free)
    if not bare or any(i + 1 in (len(found), *free) for i in free):
        yield "free space, which no hash covers, holds something, lies together or ends the file"


def _boxes(store: bytes, start: int, stop: int) -> list[_Box]:
    found: list[_Box] = []
    while start < stop:
        length = int.from_bytes(store[start : start + 4], "big")
        if length < 8 or start + length > stop:
            raise NotCanonical("box lengths do not add up")
        found.append(_Box(store[start + 4 : start + 8], start, start + 8, start + length))
        start += length
        if len(found) > MAX_BOXES:
            raise NotCanonical(f"more than {MAX_BOXES} boxes")
    return found


def _superbox(store: bytes, box: _Box, *, covered: bool) -> _Superbox:
    """`covered`: a hash in the claim covers the inside, so that the description may carry a salt."""
    children = _boxes(store, box.body, box.stop)
    if box.kind != b"jumb" or not children or children[0].kind != b"jumd":
        raise NotCanonical("a box without a description")
    description = store[children[0].body : children[0].stop]
    label, terminator, rest = description[17:].partition(b"\0")
    if len(description) < 18 or not terminator:
        raise NotCanonical("a box description is cut short")
    if not covered and (description[16] != _LABEL_ONLY or rest or description[4:16] != _UUID_TAIL):
        raise NotCanonical("a box description says more than its label")
    free = [child for child in children[1:] if child.kind == b"free"]
    if any(store[child.body : child.stop].strip(b"\0") for child in free):
        raise NotCanonical("padding in the credential store is not zero")
    try:
        text = label.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotCanonical("a box label is not UTF-8") from error
    others = [child for child in children[1:] if child.kind != b"free"]
    return _Superbox(description[:4], text, store[box.body : box.stop], others, store)


def _check_store(carrier: _Carrier) -> Seal:
    store = carrier.store
    outer = _boxes(store, 0, len(store))
    if len(outer) != 1:
        raise NotCanonical("more than one box in the credential store")
    root = _superbox(store, outer[0], covered=False)
    if root.uuid != b"c2pa" or root.label != "c2pa":
        raise NotCanonical("the outermost box is not a manifest store")
    manifests = [_superbox(store, child, covered=False) for child in root.children]
    if not manifests or len({manifest.label for manifest in manifests}) != len(manifests):
        raise NotCanonical("manifests are missing or share a label")
    checked = [_check_manifest(manifest) for manifest in manifests]
    signed = b"".join(manifest.signed for manifest in checked)
    for manifest in manifests[:-1]:  # the last manifest is the active one; it must vouch for those before it
        _require_digest(manifest.inside, signed, f"manifest {manifest.label}")
    active = checked[-1]
    return Seal(active.time_stamped, tuple(_binding_limits(active.bindings, carrier)))


@dataclass(frozen=True)
class _Manifest:
    signed: bytes  # what the claim's signature covers: the claim and its assertions
    bindings: dict[str, Any]
    time_stamped: bool


def _check_manifest(manifest: _Superbox) -> _Manifest:
    if manifest.uuid not in (b"c2ma", b"c2um"):
        raise NotCanonical(f"manifest of unknown or compressed kind {manifest.uuid.decode('latin-1')!r}")
    by_uuid: dict[bytes, _Superbox] = {}
    for child in manifest.children:
        box = _superbox(manifest.store, child, covered=False)
        if box.uuid in by_uuid or box.uuid not in {*_SINGLE_BOXES, *_OPTIONAL_STORES}:
            raise NotCanonical(f"box {box.label!r} is unknown or occurs twice")
        by_uuid[box.uuid] = box
    for uuid, labels in _SINGLE_BOXES.items():
        if uuid not in by_uuid or by_uuid[uuid].label not in labels:
            raise NotCanonical(f"box {labels[0]!r} is missing or named otherwise")
    claim = _only_cbor(by_uuid[b"c2cl"])
    assertions = list(_check_assertions(by_uuid[b"c2as"], cbor.loads(claim), manifest.label))
    signed = claim + b"".join(box.inside for box in assertions)
    for uuid, label in _OPTIONAL_STORES.items():
        if uuid in by_uuid:
            _check_optional_store(by_uuid[uuid], label, signed)
    time_stamped = _check_signature(_only_cbor(by_uuid[b"c2cs"]))
    return _Manifest(signed, _bindings(assertions), time_stamped)


def _only_cbor(box: _Superbox) -> bytes:
    if len(box.children) != 1 or box.children[0].kind != b"cbor":
        raise NotCanonical(f"box {box.label!r} holds something other than one CBOR value")
    return box.content(box.children[0])


def _check_assertions(box: _Superbox, claim: Any, manifest_label: str) -> Iterator[_Superbox]:
    """The assertions, each of which the claim must name once, with the hash that the assertion has."""
    claimed = _claimed(claim, manifest_label)
    seen = set()
    for child in box.children:
        assertion = _superbox(box.store, child, covered=True)
        if assertion.label not in claimed or assertion.label in seen:
            raise NotCanonical(f"assertion {assertion.label!r} is not in the claim, or occurs twice")
        seen.add(assertion.label)
        algorithm, digest = claimed[assertion.label]
        if algorithm not in _HASHES or _HASHES[algorithm](assertion.inside).digest() != digest:
            raise NotCanonical(f"assertion {assertion.label!r} does not have the hash in the claim")
        yield assertion


def _claimed(claim: Any, manifest_label: str) -> dict[str, tuple[str, bytes]]:
    """For each assertion that the claim names: the hash algorithm and the digest."""
    if not isinstance(claim, dict):
        raise NotCanonical("the claim is not a map")
    default = claim.get("alg", "sha256")
    claimed: dict[str, tuple[str, bytes]] = {}
    for field in ("assertions", "created_assertions", "gathered_assertions"):
        references = claim.get(field) or []
        if not isinstance(references, list):
            raise NotCanonical("the claim does not list its assertions")
        for reference in references:
            label, algorithm, digest = _reference(reference, default, manifest_label)
            if label in claimed:
                raise NotCanonical(f"the claim names assertion {label!r} twice")
            claimed[label] = (algorithm, digest)
    return claimed


def _reference(reference: Any, default: Any, manifest_label: str) -> tuple[str, str, bytes]:
    fields = reference if isinstance(reference, dict) else {}
    url, algorithm, digest = fields.get("url"), fields.get("alg", default), fields.get("hash")
    if not isinstance(url, str) or not isinstance(algorithm, str) or not isinstance(digest, bytes):
        raise NotCanonical("a reference in the claim lacks its address, algorithm or hash")
    for prefix in ("self#jumbf=c2pa.assertions/", f"self#jumbf=/c2pa/{manifest_label}/c2pa.assertions/"):
        if url.startswith(prefix):
            return url[len(prefix) :], algorithm, digest
    raise NotCanonical("the claim names an assertion elsewhere")


def _check_optional_store(box: _Superbox, label: str, signed: bytes) -> None:
    if box.label != label:
        raise NotCanonical(f"box {label!r} is named otherwise")
    for child in box.children:
        inner = _superbox(box.store, child, covered=True)
        _require_digest(inner.inside, signed, f"box {inner.label!r}")


def _require_digest(inside: bytes, signed: bytes, name: str) -> None:
    if not any(algorithm(inside).digest() in signed for algorithm in _HASHES.values()):
        raise NotCanonical(f"{name} is covered by no hash")


def _check_signature(spelled: bytes) -> bool:
    """Hold COSE_Sign1 to [protected, {zero padding}, nil, signature]; return whether it carries a time stamp."""
    cose = cbor.loads(spelled)
    if not (isinstance(cose, cbor.Tagged) and cose.tag == 18 and isinstance(cose.value, list) and len(cose.value) == 4):
        raise NotCanonical("the signature is not a COSE_Sign1")
    protected, unprotected, payload, signature = cose.value
    if not isinstance(protected, bytes) or not isinstance(signature, bytes) or payload is not None:
        raise NotCanonical("the COSE_Sign1 is not detached")
    if not isinstance(unprotected, dict) or not isinstance(cbor.loads(protected), dict):
        raise NotCanonical("a COSE_Sign1 header is not a map")
    for key, value in unprotected.items():
        if key in _PADDINGS:
            _require_zeros(value)
        elif key not in (*_TIME_STAMPS, *_OTHER_UNSIGNED):
            raise NotCanonical(f"unsigned header entry {str(key)[:40]!r}")
    return any(key in unprotected for key in _TIME_STAMPS)


def _require_zeros(padding: Any) -> None:
    if not isinstance(padding, bytes) or padding.strip(b"\0"):
        raise NotCanonical("padding in the credential store is not zero")


def _bindings(assertions: list[_Superbox]) -> dict[str, Any]:
    """The assertions that bind the manifest to the file's bytes, decoded, by label."""
    found = {}
    for box in assertions:
        if box.label.startswith("c2pa.hash."):
            found[box.label] = cbor.loads(_only_cbor(box))
    return found


def _binding_limits(bindings: dict[str, Any], carrier: _Carrier) -> Iterator[str]:
    if carrier.is_mp4:
        yield from _mp4_binding_limits(bindings)
        yield from carrier.limits
        return
    binding = bindings.get("c2pa.hash.data")
    if len(bindings) != 1 or not isinstance(binding, dict):
        yield "the file is not bound by one hash over all its bytes"
        return
    for padding in _PADDINGS:
        _require_zeros(binding.get(padding, b""))
    if carrier.instance not in _USUAL_INSTANCES:
        yield "the number of the JPEG segments that hold the credentials is unusual, and covered by no hash"
    whole = [[{"start": carrier.start, "length": stop - carrier.start}] for stop in carrier.stops]
    if binding.get("exclusions") not in whole:
        yield "the hash leaves out other bytes than the credential store"


def _mp4_binding_limits(bindings: dict[str, Any]) -> Iterator[str]:
    """From version 2 on the hash covers where each box begins too."""
    binding = bindings.get("c2pa.hash.bmff.v2", bindings.get("c2pa.hash.bmff.v3"))
    if len(bindings) != 1 or not isinstance(binding, dict) or "merkle" in binding:
        yield "the file is not bound by one hash over all its boxes"
        return
    left_out = binding.get("exclusions")
    if not isinstance(left_out, list) or _THE_STORE not in left_out or any(each not in _LEFT_OUT for each in left_out):
        yield "the hash leaves out other boxes than it should"
