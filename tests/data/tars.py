"""Tars to read: webdataset's shards, and what no shard should be."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import PIL.Image

from countermark.core.media import Image
from countermark.provenance.encode import encode


def png(value: int, size: tuple[int, int] = (4, 4), mode: str = "L") -> bytes:
    stream = io.BytesIO()
    PIL.Image.new(mode, size, value).save(stream, "PNG")
    return stream.getvalue()


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: object) -> bytes:
    """A header, its data and their padding."""
    info = tarfile.TarInfo(name)
    info.size, info.type = len(data), kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + data + bytes(-len(data) % 512)


def make_tar(path: Path, members: Mapping[str, bytes], end: bytes = bytes(1024)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(member(name, data) for name, data in members.items()) + end)
    return path


def make_shards(folder: Path, num_shards: int = 3, each: int = 20, side: int = 8) -> str:
    """Random colour pictures in 4 classes; returns what names them."""
    rng = np.random.default_rng(0)
    for shard in range(num_shards):
        files: dict[str, bytes] = {}
        for i in range(each):
            files[f"{i:04d}.png"] = encode(Image(rng.integers(0, 256, (side, side, 3), np.uint8)), "png")
            files[f"{i:04d}.cls"] = b"%d\n" % (i % 4)
        make_tar(folder / f"{shard:02d}.tar", files)
    return f"{folder}/{{00..{num_shards - 1:02d}}}.tar"
