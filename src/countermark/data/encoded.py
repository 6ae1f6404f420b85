"""Sources whose pictures are files, wherever their bytes lie, and what archives may call their members."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from countermark.core.errors import CountermarkError
from countermark.core.files import sha256_hex
from countermark.core.media import PICTURE_SUFFIXES, Image, decode_image, image_size
from countermark.core.text import printable

MAX_PICTURES = 10_000_000
MAX_CLASSES = 100_000
SURE_CLASSES = 1000  # a set may name so many classes with fewer pictures than that


class EncodedSource(ABC):
    """A Source of PNG, JPEG or WebP files; the unit of each is its own bytes."""

    name: str
    classes: np.ndarray | None
    class_names: list[str]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def label(self, index: int) -> str:
        """Where picture `index` lies, safe to show."""

    @abstractmethod
    def encoded(self, index: int) -> bytes:
        """The file's bytes. Raises CountermarkError when they cannot be read."""

    def size(self, index: int) -> tuple[int, int]:
        return image_size(self.encoded(index), name=self.label(index))

    def read(self, index: int) -> tuple[Image, str]:
        data = self.encoded(index)
        return decode_image(data, name=self.label(index)), sha256_hex(data)


def is_picture(name: str) -> bool:
    """Whether a member is meant as a picture: hidden files, such as those that a Mac adds, are not."""
    return name.lower().endswith(PICTURE_SUFFIXES) and not re.split(r"[/\\]", name)[-1].startswith(".")


def refuse_leaving(member: str, is_link: bool, archive: object) -> None:
    """Raises CountermarkError for a member of an archive that is a link or lies outside its folder."""
    parts = member.replace("\\", "/").split("/")
    if is_link or ".." in parts or member.startswith(("/", "\\")) or ":" in parts[0]:
        what = "is a link" if is_link else "leaves the archive"
        raise CountermarkError(f"{printable(archive)}: member {printable(member)} {what}; refused")


def classes_by_folder(places: Sequence[tuple[str, ...]]) -> tuple[np.ndarray | None, list[str]]:
    """Classes [N] by the first folder of each place, and their names; None unless all lie in one of several folders."""
    names = sorted({parts[0] for parts in places if len(parts) > 1})
    if len(names) < 2 or any(len(parts) == 1 for parts in places):
        return None, []
    number = {name: i for i, name in enumerate(names)}
    return np.array([number[parts[0]] for parts in places], np.int64), names


def numbered_classes(labels: Sequence[int]) -> tuple[np.ndarray, list[str]]:
    """Classes [N] that are whole numbers, and their names. Raises ValueError and OverflowError for one out of range."""
    classes = np.array(labels, np.int64)
    # Every class is an input of the networks: one label out of thousands must not make them huge.
    if classes.min() < 0 or classes.max() >= min(max(SURE_CLASSES, len(classes)), MAX_CLASSES):
        raise ValueError("a label is out of range")
    return classes, [str(i) for i in range(int(classes.max()) + 1)]
