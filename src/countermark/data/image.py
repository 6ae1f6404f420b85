"""Pictures ready to train on: decoded, of one size, split, and shuffled into an endless stream."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import PIL.Image

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.files import sha256_hex
from countermark.core.seeds import derive
from countermark.core.text import printable
from countermark.data.sources import Batch, Source
from countermark.data.splits import SHARES, indices_of

MAX_MEMORY_BYTES = 8 * 2**30
COLOURS = 3
MAX_UNREADABLE = 100  # after so many the rest is not tried: they may all have been made to take long
T = TypeVar("T")


@dataclass(frozen=True)
class PictureSet:
    """A whole set in memory: images uint8 [N,H,W,C], classes int64 [N] or None, units: sha256 of each photograph."""

    name: str
    images: np.ndarray
    classes: np.ndarray | None
    class_names: list[str]
    units: list[str]

    @property
    def size(self) -> int:
        return int(self.images.shape[1])

    @property
    def channels(self) -> int:
        return int(self.images.shape[3])

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def fingerprint(self) -> str:
        """The sha256 of the units and classes: two sets with one fingerprint hold the same pictures in one order."""
        classes = b"" if self.classes is None else self.classes.tobytes()
        return sha256_hex("".join(self.units).encode() + classes)

    def part(self, name: str) -> PictureSet:
        """The pictures of one part of the split. Raises UsageError when it is empty."""
        chosen = indices_of(name, self.units)
        if not len(chosen):
            raise UsageError(
                f"data: none of the {len(self.units)} pictures of {self.name} falls into the part {name!r} "
                f"({SHARES[name]:.0%} of a set); give more pictures"
            )
        classes = None if self.classes is None else self.classes[chosen]
        units = [self.units[i] for i in chosen]
        return PictureSet(self.name, self.images[chosen], classes, self.class_names, units)


@dataclass(frozen=True)
class Inspection:
    """What a source declares: pictures, their distinct (width, height) with counts, and class names."""

    name: str
    num_pictures: int
    sizes: dict[tuple[int, int], int]
    class_names: list[str]

    def common_size(self) -> int:
        """The side of the square pictures. Raises UsageError when sizes are mixed or not square."""
        remedy = "give --size N (centre crop and resize)"
        if len(self.sizes) > 1:
            some = " and ".join(f"{width} x {height}" for width, height in sorted(self.sizes)[:2])
            raise UsageError(f"data: {printable(self.name)} mixes {len(self.sizes)} sizes ({some}, ...); {remedy}")
        width, height = next(iter(self.sizes))
        if width != height:
            raise UsageError(f"data: the pictures of {printable(self.name)} are {width} x {height}; {remedy}")
        return width


def inspect(source: Source) -> Inspection:
    """Read every picture's header. Raises CountermarkError that counts the unreadable ones and names the first."""
    sizes = Counter(_gather(source, source.size))
    return Inspection(source.name, len(source), dict(sizes), source.class_names)


def load(source: Source, size: int) -> PictureSet:
    """Decode a source to `size` x `size` pixels: centre crop to a square, antialiased Lanczos. Grey if all are grey.

    Raises CountermarkError for unreadable pictures, UsageError when the set would not fit into MAX_MEMORY_BYTES.
    """
    if len(source) * size * size * COLOURS > MAX_MEMORY_BYTES:  # before decoding nobody knows which are grey
        raise UsageError(
            f"data: {len(source)} pictures of {size} px may take more than {MAX_MEMORY_BYTES // 2**30} GiB; "
            "give fewer pictures or a smaller --size"
        )

    def read(index: int) -> tuple[np.ndarray, str]:
        image, unit = source.read(index)
        return fitted(image.samples, size), unit

    pictures, units = zip(*_gather(source, read), strict=True)
    channels = max(picture.shape[2] for picture in pictures)
    images = np.stack([np.broadcast_to(picture, (size, size, channels)) for picture in pictures])
    return PictureSet(source.name, images, source.classes, source.class_names, list(units))


def _gather(source: Source, read: Callable[[int], T]) -> list[T]:
    """`read(i)` for every picture, a few at a time in threads, so that hostile sizes never pile up in memory."""

    def attempt(index: int) -> T | CountermarkError:
        try:
            return read(index)
        except CountermarkError as error:
            return error

    step = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(step) as pool:
        read_ones: list[T] = []
        bad: list[CountermarkError] = []
        for start in range(0, len(source), step):
            for outcome in pool.map(attempt, _run(start, step, source)):
                if isinstance(outcome, CountermarkError):
                    bad.append(outcome)
                else:
                    read_ones.append(outcome)
            if len(bad) > MAX_UNREADABLE:
                break
    if bad:
        count = f"more than {MAX_UNREADABLE}" if len(bad) > MAX_UNREADABLE else str(len(bad))
        raise CountermarkError(f"data: {count} of {len(source)} pictures cannot be read; remove them; first: {bad[0]}")
    return read_ones


def _run(start: int, step: int, source: Source) -> range:
    return range(start, min(start + step, len(source)))


def fitted(samples: np.ndarray, size: int) -> np.ndarray:
    """The square in the centre of uint8 [H,W,C], antialiased Lanczos to [size,size,C]."""
    return _resize(_centre_crop(samples), size)


def _centre_crop(samples: np.ndarray) -> np.ndarray:
    height, width = samples.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return samples[top : top + side, left : left + side]


def _resize(samples: np.ndarray, size: int) -> np.ndarray:
    if samples.shape[:2] == (size, size):
        return samples
    picture = PIL.Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
    return np.asarray(picture.resize((size, size), PIL.Image.Resampling.LANCZOS)).reshape(size, size, -1)


class Shuffled:
    """The endless stream of a set: every epoch in an order of its own, drawn from `seed` and the epoch's number."""

    def __init__(self, pictures: PictureSet, seed: int) -> None:
        self.pictures, self.seed = pictures, seed
        self.num_classes = pictures.num_classes

    def at(self, position: int, num: int, step: int = 1) -> Batch:
        chosen = np.array([self._index(p) for p in range(position, position + num * step, step)])
        classes = self.pictures.classes
        return Batch(self.pictures.images[chosen], None if classes is None else classes[chosen])

    def _index(self, position: int) -> int:
        epoch, place = divmod(position, len(self.pictures.images))
        return int(self._order(epoch)[place])

    def _order(self, epoch: int) -> np.ndarray:
        if getattr(self, "_epoch", None) != epoch:
            rng = np.random.default_rng(derive(self.seed, "order", epoch))
            self._epoch, self._permutation = epoch, rng.permutation(len(self.pictures.images))
        return self._permutation
