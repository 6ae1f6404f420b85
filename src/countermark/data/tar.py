"""The members of a tar that nobody vouches for: plain files in place, or one line that says what is wrong."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from countermark.core.errors import CountermarkError
from countermark.core.text import printable
from countermark.data.encoded import MAX_PICTURES, refuse_leaving

MAX_MEMBERS = 3 * MAX_PICTURES  # of a tar: a picture, its class, and something else
MAX_HEADER_BYTES = 8192  # of a header's extension: a name of 4,096 bytes, and some attributes
MAX_PADDING_BYTES = 2**20  # of zeros at the end: programs write up to a record, which most have of 10,240 bytes
MAX_ATTRIBUTES = 100  # for all members at once
_LINKS = (tarfile.SYMTYPE, tarfile.LNKTYPE)
_MANY_DIGITS = re.compile(rb"\d{256}")


class Member(NamedTuple):
    """A file in a tar: its name without leading ./, and the place of its bytes."""

    name: str
    offset: int
    size: int


def members(stream: BinaryIO, path: Path) -> Iterator[Member]:
    """The files of the tar in `stream`, in their order; its reader may move in `stream` in between.

    Raises CountermarkError for links, devices, holes (sparse files), names that leave the archive, more than
    MAX_MEMBERS, compressed tars, and tars that are damaged or end too early.
    """
    try:
        yield from _checked(stream, path)
    except (CountermarkError, OSError):
        raise
    except Exception as error:  # the parser has many errors for what is no tar, some of them by accident
        raise CountermarkError(
            f"{printable(path)}: no tar or a damaged one ({type(error).__name__}); give a plain one, not compressed"
        ) from error


def _checked(stream: BinaryIO, path: Path) -> Iterator[Member]:
    headers: Any = _Headers(stream)
    archive: Any = tarfile.TarFile(fileobj=headers, mode="r", encoding="utf-8", errors="surrogateescape")
    count = 0
    while (info := archive.next()) is not None:
        archive.members.clear()  # it would remember them all
        count += 1
        if count > MAX_MEMBERS:
            raise CountermarkError(f"{printable(path)}: more than {MAX_MEMBERS} members; split it")
        if len(archive.pax_headers) > MAX_ATTRIBUTES:
            raise ValueError("attributes that every member would carry")
        refuse_leaving(info.name, info.type in _LINKS, path)
        if not (info.isfile() or info.isdir()) or info.issparse() or info.size < 0:
            raise CountermarkError(f"{printable(path)}: member {printable(info.name)} is no plain file; refused")
        if info.isfile():
            yield Member(re.sub(r"^(\./+)+", "", info.name), info.offset_data, info.size)
    # The parser takes a header that is damaged for the end, and what follows it would be lost without a word; so would
    # what lies behind zeros that a download has not filled yet.
    stream.seek(archive.offset)
    end = stream.read(MAX_PADDING_BYTES + 1)
    if not tarfile.BLOCKSIZE <= len(end) <= MAX_PADDING_BYTES or any(end):
        raise CountermarkError(f"{printable(path)}: damaged or cut off after {count} members; fetch or make it again")


class _Headers:
    """What the parser sees of a tar: headers, never so long or so made that it would choke on them."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, num: int) -> bytes:
        if not 0 <= num <= MAX_HEADER_BYTES:
            raise ValueError("a header that is too long")
        data = self.stream.read(num)
        if _MANY_DIGITS.search(data):  # a pattern of the parser takes the square of their number
            raise ValueError("a header of digits")
        return data
