"""A reader for the deterministic CBOR of C2PA (RFC 8949, section 4.2.1), which refuses every other spelling.

Each value has one spelling: lengths are definite and shortest, no map names a key twice, nothing follows the value.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

MAX_DEPTH = 32
_SIMPLE = {20: False, 21: True, 22: None}
_FLOATS = {25: (2, ">e"), 26: (4, ">f"), 27: (8, ">d")}
_SHORTEST_FROM = {24: 24, 25: 2**8, 26: 2**16, 27: 2**32}


class NotDeterministic(ValueError):
    """The bytes are not CBOR, or not its one deterministic spelling."""


@dataclass(frozen=True)
class Tagged:
    """A value under a CBOR tag."""

    tag: int
    value: Any


def loads(data: bytes) -> Any:
    """The one value that `data` spells. Raises NotDeterministic."""
    value, position = _item(data, 0, 0)
    if position != len(data):
        raise NotDeterministic("bytes follow the CBOR value")
    return value


def _item(data: bytes, position: int, depth: int) -> tuple[Any, int]:
    if depth > MAX_DEPTH:
        raise NotDeterministic(f"CBOR is nested deeper than {MAX_DEPTH}")
    if position >= len(data):
        raise NotDeterministic("CBOR ends early")
    major, info = data[position] >> 5, data[position] & 31
    if major == 7:
        return _simple(data, position + 1, info)
    count, position = _count(data, position + 1, info)
    if major == 0:
        return count, position
    if major == 1:
        return -1 - count, position
    if major in (2, 3):
        return _string(data, position, count, text=major == 3)
    if major == 4:
        return _array(data, position, count, depth)
    if major == 5:
        return _map(data, position, count, depth)
    value, position = _item(data, position, depth + 1)
    return Tagged(count, value), position


def _take(data: bytes, position: int, count: int) -> bytes:
    if position + count > len(data):
        raise NotDeterministic("CBOR ends early")
    return data[position : position + count]


def _count(data: bytes, position: int, info: int) -> tuple[int, int]:
    if info < 24:
        return info, position
    if info > 27:
        raise NotDeterministic("CBOR of indefinite or reserved length")
    num_bytes = 1 << (info - 24)
    count = int.from_bytes(_take(data, position, num_bytes), "big")
    if count < _SHORTEST_FROM[info]:
        raise NotDeterministic("a CBOR number is not in its shortest form")
    return count, position + num_bytes


def _simple(data: bytes, position: int, info: int) -> tuple[Any, int]:
    if info in _SIMPLE:
        return _SIMPLE[info], position
    if info in _FLOATS:
        num_bytes, spelling = _FLOATS[info]
        return struct.unpack(spelling, _take(data, position, num_bytes))[0], position + num_bytes
    raise NotDeterministic("a CBOR simple value that C2PA does not use")


def _string(data: bytes, position: int, count: int, *, text: bool) -> tuple[Any, int]:
    taken = _take(data, position, count)
    if not text:
        return taken, position + count
    try:
        return taken.decode("utf-8"), position + count
    except UnicodeDecodeError as error:
        raise NotDeterministic("CBOR text is not UTF-8") from error


def _array(data: bytes, position: int, count: int, depth: int) -> tuple[list, int]:
    if count > len(data) - position:
        raise NotDeterministic("CBOR ends early")
    values = []
    for _ in range(count):
        value, position = _item(data, position, depth + 1)
        values.append(value)
    return values, position


def _map(data: bytes, position: int, count: int, depth: int) -> tuple[dict, int]:
    if 2 * count > len(data) - position:
        raise NotDeterministic("CBOR ends early")
    values: dict[Any, Any] = {}
    for _ in range(count):
        key, position = _item(data, position, depth + 1)
        if not isinstance(key, str | int) or isinstance(key, bool):
            raise NotDeterministic("a CBOR map key is neither text nor a whole number")
        if key in values:
            raise NotDeterministic(f"CBOR map key {key!r} occurs twice")
        values[key], position = _item(data, position, depth + 1)
    return values, position
