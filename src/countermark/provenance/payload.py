"""What a watermark says: 64 bits, of which 24 prove that this installation wrote them.

From the highest bit: version (4) | kind (2) | id (34) | the first 24 bits of HMAC-SHA256(key, version | kind | id).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from countermark.core.errors import UsageError

VERSION = 1
KINDS = ("made", "edited", "protected")
ID_BITS = 34
NUM_BYTES = 8
_AUTHENTICATION_BITS = 24
_KIND_BITS = 2


@dataclass(frozen=True)
class Payload:
    """`kind`: one of KINDS; `id`: 0 <= id < 2**34, which the registry gives."""

    version: int
    kind: str
    id: int


def pack(payload: Payload, key: bytes) -> bytes:
    """The 8 bytes of `payload`, authenticated with `key`. Raises UsageError for values that do not fit."""
    if payload.version != VERSION:
        raise UsageError(f"payload version {payload.version} is unknown; this release writes version {VERSION}")
    if payload.kind not in KINDS:
        raise UsageError(f"payload kind {payload.kind!r} is unknown; choose one of {', '.join(KINDS)}")
    if not 0 <= payload.id < 2**ID_BITS:
        raise UsageError(f"payload id {payload.id} is out of range; give 0 <= id < 2**{ID_BITS}")
    head = ((payload.version << _KIND_BITS) | KINDS.index(payload.kind)) << ID_BITS | payload.id
    return head.to_bytes(5, "big") + _code(head.to_bytes(5, "big"), key)


def unpack(data: bytes) -> Payload | None:
    """What the 8 bytes say, authentic or not; None for a version or kind that this release does not know."""
    if len(data) != NUM_BYTES:
        raise UsageError(f"a payload has {NUM_BYTES} bytes, not {len(data)}")
    head = int.from_bytes(data[:5], "big")
    version, kind = head >> (_KIND_BITS + ID_BITS), (head >> ID_BITS) % 2**_KIND_BITS
    if version != VERSION or kind >= len(KINDS):
        return None
    return Payload(version, KINDS[kind], head % 2**ID_BITS)


def is_authentic(data: bytes, key: bytes) -> bool:
    """Whether the holder of `key` wrote these 8 bytes; a forger's guess passes with probability 2**-24."""
    return len(data) == NUM_BYTES and hmac.compare_digest(data[5:], _code(data[:5], key))


def _code(head: bytes, key: bytes) -> bytes:
    return hmac.new(key, head, hashlib.sha256).digest()[: _AUTHENTICATION_BITS // 8]
