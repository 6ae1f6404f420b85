"""Tar shards as a source of pictures: named as a range, indexed once, and then read at any place."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.text import printable
from countermark.core.tracking import Track, untracked
from countermark.data.encoded import EncodedSource
from countermark.data.reading import unreadable
from countermark.data.shard_index import index_of, read_at

MAX_SHARDS = 100_000
RANGE = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")


class ShardSource(EncodedSource):
    """Every picture of x.tar or shards/{000..099}.tar, in the order of shards, then of each archive.

    Classes are those of .cls or .json files, else by folder as in a FolderSource. Only the first opening reads the
    shards (see shard_index.py). Raises as `shard_paths` and `index_of`.
    """

    def __init__(self, name: str, track: Track = untracked) -> None:
        self.name, self.paths = name, shard_paths(name)
        if missing := [path for path in self.paths if not path.is_file()]:
            raise UsageError(
                f"data: {len(missing)} of {len(self.paths)} shards are not there, first {printable(missing[0])}; "
                "name the ones that are"
            )
        self.index = index_of(self.paths, track)
        self.classes, self.class_names = self.index.classes, self.index.class_names

    def __len__(self) -> int:
        return len(self.index.names)

    def label(self, index: int) -> str:
        return printable(f"{self._path(index)}:{self.index.names[index]}")

    def encoded(self, index: int) -> bytes:
        return read_at(self._path(index), int(self._cell("offset", index)), int(self._cell("size", index)))

    def size(self, index: int) -> tuple[int, int]:
        if index in self.index.broken:
            raise CountermarkError(self.index.broken[index])
        return int(self._cell("width", index)), int(self._cell("height", index))

    def sizes(self) -> Counter[tuple[int, int]]:
        """How many pictures are of each (width, height), by the index. Raises CountermarkError when some are broken."""
        columns = self._sound_columns()
        return Counter(zip(columns["width"].tolist(), columns["height"].tolist(), strict=True))

    def known(self) -> tuple[int, list[str]]:
        """(the most channels, the units) of all pictures, by the index. Raises CountermarkError as `sizes` does."""
        columns = self._sound_columns()
        return int(columns["channels"].max()), [row.tobytes().hex() for row in columns["sha256"]]

    def _sound_columns(self) -> dict[str, np.ndarray]:
        broken = self.index.broken
        if broken:
            raise unreadable(str(len(broken)), len(self), broken[min(broken)])
        return self.index.columns

    def _cell(self, column: str, index: int) -> np.ndarray:
        return self.index.columns[column][index]

    def _path(self, index: int) -> Path:
        return self.paths[int(self._cell("shard", index))]


def is_shards(name: str) -> bool:
    """Whether `name` can only mean tar shards."""
    return name.lower().endswith(".tar")


def shard_paths(name: str, argument: str = "data") -> list[Path]:
    """The paths that x.tar or shards/{000..099}.tar names; zeros in front are kept. argument: what errors call it.

    Raises UsageError for a range that is none.
    """
    ranges = RANGE.findall(name)
    if not ranges and "{" not in name:
        return [Path(name)]
    first, last = ranges[0] if len(ranges) == 1 else ("0", "-1")
    num = int(last) - int(first) + 1
    if not 1 <= num <= MAX_SHARDS:
        raise UsageError(
            f"{argument}: {printable(name)} names no shards; give one range of at most {MAX_SHARDS}, "
            "such as 'shards/{000..099}.tar', in quotes"
        )
    width = len(first) if first.startswith("0") else 0
    return [Path(RANGE.sub(f"{number:0{width}d}", name)) for number in range(int(first), int(last) + 1)]
