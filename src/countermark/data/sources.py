"""Where pictures come from: a folder, a zip, tar shards (shards.py), or a set that is packaged with a library.

A source lists pictures as encoded bytes or arrays, each with the sha256 of its independent unit (the photograph);
`image.py` decodes, resizes and splits them.
"""

from __future__ import annotations

import json
import os
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.files import read_bounded
from countermark.core.media import MAX_FILE_BYTES, PICTURE_SUFFIXES, Image
from countermark.core.text import named, printable
from countermark.core.tracking import Track, untracked
from countermark.data.encoded import (
    MAX_PICTURES,
    EncodedSource,
    classes_by_folder,
    is_picture,
    numbered_classes,
    refuse_leaving,
)
from countermark.data.packaged import PACKAGED
from countermark.data.shards import ShardSource, is_shards

MAX_LABEL_BYTES = 64 * 2**20
# Pictures are compressed already: what shrinks further than this in a zip, beyond its first megabyte, is a bomb.
MAX_ZIP_RATIO, FREE_ZIP_BYTES = 100, 2**20


@dataclass(frozen=True)
class Batch:
    """images: uint8 [N,H,W,C], or float32 in [-1,1]. classes: int64 [N], or None for a set without classes."""

    images: np.ndarray
    classes: np.ndarray | None


class Batches(Protocol):
    """An endless, seeded stream of training pictures that can be entered at any position.

    `at(position, num, step)` returns `num` pictures of the stream, number position, position + step, ...; the same call
    gives the same bytes at any time, so a training resumes from its image count alone, and several processes that read
    with a step of their number read each picture once.
    """

    num_classes: int

    def at(self, position: int, num: int, step: int = 1) -> Batch: ...


class Source(Protocol):
    """A named list of pictures with classes [N] (int64) or None.

    `label(i)` is what to call picture i, safe to show; `size(i)` its declared (width, height); `read(i)` the picture
    and the sha256 of its unit.
    """

    name: str
    classes: np.ndarray | None
    class_names: list[str]

    def __len__(self) -> int: ...

    def label(self, index: int) -> str: ...

    def size(self, index: int) -> tuple[int, int]: ...

    def read(self, index: int) -> tuple[Image, str]: ...


class FolderSource(EncodedSource):
    """Every picture below a folder; classes are the names of its subfolders when all pictures lie in one."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self.paths = _pictures_below(folder)
        self.classes, self.class_names = classes_by_folder([path.relative_to(folder).parts for path in self.paths])

    def __len__(self) -> int:
        return len(self.paths)

    def label(self, index: int) -> str:
        return printable(self.paths[index])

    def encoded(self, index: int) -> bytes:
        return read_bounded(self.paths[index], MAX_FILE_BYTES)


class ZipSource(EncodedSource):
    """Every picture of a zip, read in place and never unpacked; StyleGAN's dataset.json gives classes when present."""

    def __init__(self, path: Path) -> None:
        self.name, self.path = str(path), path
        try:
            self.archive = zipfile.ZipFile(path)
            self.members = [member for member in self.archive.infolist() if is_picture(member.filename)]
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise CountermarkError(f"{printable(path)}: damaged zip ({printable(error)})") from error
        for member in self.members:
            refuse_leaving(member.filename, stat.S_ISLNK(member.external_attr >> 16), path)
        if not self.members:
            raise UsageError(f"data: {printable(path)} holds no pictures ({named(PICTURE_SUFFIXES)})")
        self.members.sort(key=lambda member: member.filename)
        self.classes, self.class_names = self._labels()

    def __len__(self) -> int:
        return len(self.members)

    def label(self, index: int) -> str:
        return printable(f"{self.path}:{self.members[index].filename}")

    def encoded(self, index: int) -> bytes:
        return self._bytes(self.members[index], MAX_FILE_BYTES)

    def _bytes(self, member: zipfile.ZipInfo, limit_bytes: int) -> bytes:
        name = printable(f"{self.path}:{member.filename}")
        if member.file_size > min(FREE_ZIP_BYTES + MAX_ZIP_RATIO * member.compress_size, limit_bytes):
            raise CountermarkError(f"{name}: a member of {member.file_size} bytes is over the limit")
        try:
            with self.archive.open(member) as stream:
                data = stream.read(limit_bytes + 1)  # the declared size is the archive's word, not a fact
        except (OSError, RuntimeError, EOFError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
            raise CountermarkError(f"{name}: cannot be read ({printable(error)})") from error
        except Exception as error:  # zlib, bz2 and lzma each raise their own error for damaged data
            raise CountermarkError(f"{name}: damaged ({type(error).__name__})") from error
        if len(data) > limit_bytes:
            raise CountermarkError(f"{name}: larger than the limit of {limit_bytes} bytes")
        return data

    def _labels(self) -> tuple[np.ndarray | None, list[str]]:
        if "dataset.json" not in self.archive.namelist():
            return None, []
        try:
            document = json.loads(self._bytes(self.archive.getinfo("dataset.json"), MAX_LABEL_BYTES))
            pairs = document.get("labels")
            if not pairs:
                return None, []
            table = {str(name): int(label) for name, label in pairs}
            return numbered_classes([table[member.filename] for member in self.members])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise CountermarkError(
                f"{printable(self.path)}: dataset.json is not StyleGAN's (every picture needs one whole-number label)"
            ) from error


def _pictures_below(folder: Path) -> list[Path]:
    root = folder.resolve()
    found: list[Path] = []
    for where, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in [*folders, *names]:
            path = Path(where, name)
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):  # resolve() fails in loops
                raise UsageError(
                    f"data: the link {printable(path)} leaves {printable(folder)}; remove it or copy its target"
                )
        found += [Path(where, name) for name in names if name.lower().endswith(PICTURE_SUFFIXES) and name[0] != "."]
        if len(found) > MAX_PICTURES:
            raise UsageError(f"data: {printable(folder)} holds more than {MAX_PICTURES} pictures")
    if not found:
        raise UsageError(f"data: {printable(folder)} holds no pictures ({named(PICTURE_SUFFIXES)})")
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def open_source(name: str | Path, argument: str = "data", track: Track = untracked) -> Source:
    """The source called `name`: a packaged set, a folder, a zip, or tar shards. argument: what errors call it.

    track: follows the first opening of tar shards, which reads them all. Raises UsageError when there is none,
    CountermarkError when it is damaged.
    """
    if str(name) in PACKAGED:
        return PACKAGED[str(name)]()
    if not str(name):
        raise UsageError(f"{argument}: no source given; give a folder, a zip, tar shards, or a packaged set")
    path = Path(name)
    try:
        if path.is_dir():
            return FolderSource(path)
        if is_shards(str(name)):
            return ShardSource(str(name), track)
        if path.is_file() and zipfile.is_zipfile(path):
            return ZipSource(path)
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: links that go round
        raise UsageError(f"{argument}: {printable(name)} cannot be opened ({printable(error)})") from error
    raise UsageError(
        f"{argument}: {printable(name)} is no folder, zip, tar shards or packaged set; packaged are {named(PACKAGED)}"
    )
