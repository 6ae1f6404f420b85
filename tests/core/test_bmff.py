import struct

import pytest

from countermark.core import bmff
from countermark.core.bmff import Box, Misfit, boxes, inside, only


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + kind + body


def test_boxes_fill_what_holds_them() -> None:
    data = box(b"aaaa", b"12") + struct.pack(">I4sQ", 1, b"bbbb", 19) + b"345" + box(b"cccc", b"")
    assert boxes(data, 0, len(data)) == [Box(b"aaaa", 0, 8, 10), Box(b"bbbb", 10, 26, 29), Box(b"cccc", 29, 37, 37)]
    nested = box(b"out ", data)
    found = inside(nested, boxes(nested, 0, len(nested))[0])
    assert list(found) == [b"aaaa", b"bbbb", b"cccc"]
    assert only(found, b"bbbb").stop == 37


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        box(b"aaaa", b"")[:-1],
        box(b"aaaa", b"12") + b"\0\0\0",
        struct.pack(">I", 0) + b"aaaa",
        struct.pack(">I", 7) + b"aaaa",
        struct.pack(">I", 2**32 - 1) + b"aaaa",
        struct.pack(">I4sQ", 1, b"aaaa", 15),
        struct.pack(">I4sQ", 1, b"aaaa", 2**64 - 1),
        struct.pack(">I4s", 1, b"aaaa"),
    ],
)
def test_boxes_that_do_not_fit_are_refused(data: bytes) -> None:
    with pytest.raises(Misfit):
        boxes(data, 0, len(data))


def test_a_crowd_of_boxes_is_refused() -> None:
    crowd = box(b"free", b"") * bmff.MAX_BOXES
    assert len(boxes(crowd, 0, len(crowd))) == bmff.MAX_BOXES
    with pytest.raises(Misfit, match="side by side"):
        boxes(crowd + box(b"free", b""), 0, len(crowd) + 8)


@pytest.mark.parametrize("data", [b"", box(b"aaaa", b"") * 2])
def test_only_one_is_one(data: bytes) -> None:
    with pytest.raises(Misfit, match="where one is asked for"):
        only(inside(data, Box(b"", 0, 0, len(data))), b"aaaa")
