"""Pictures ready to train on: decoded, of one size, split, and shuffled into an endless stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

import numpy as np
import PIL.Image

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.files import sha256_hex
from countermark.core.seeds import derive
from countermark.core.text import printable
from countermark.core.tracking import Track, untracked
from countermark.data.reading import NUM_THREADS, attempts, unreadable
from countermark.data.shards import ShardSource
from countermark.data.sources import Batch, Source
from countermark.data.splits import SHARES, indices_of
from countermark.data.streamed import Decoded, Pictures, Streamed

# Of decoded pictures. Half of it is for the set, or for what is kept of one that is streamed; half for parts of it.
MAX_MEMORY_BYTES = 2 * 2**30
BATCHES_AHEAD = 2  # of a streamed set are decoded in the background
COLOURS = 3
MAX_UNREADABLE = 100  # after so many the rest is not tried: they may all have been made to take long
T = TypeVar("T")


@dataclass(frozen=True)
class PictureSet:
    """A set: images uint8 [N,H,W,C], classes int64 [N] or None, units: sha256 of each photograph.

    The images are in memory, or are streamed where they would not fit.
    """

    name: str
    images: Pictures
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
        images = self.images.part(chosen) if isinstance(self.images, Streamed) else self.images[chosen]
        classes = None if self.classes is None else self.classes[chosen]
        return replace(self, images=images, classes=classes, units=[self.units[i] for i in chosen])

    def held(self) -> Batch:
        """The pictures in memory; of a streamed set as many as fit into half the cap, at even steps."""
        if not isinstance(self.images, Streamed):
            return Batch(self.images, self.classes)
        num = self.fitting(len(self.units))
        chosen = np.arange(num) * len(self.units) // num
        return Batch(self.images[chosen], None if self.classes is None else self.classes[chosen])

    def fitting(self, num: int) -> int:
        """`num`, or as many pictures of this size as fit into half the cap, if the set is streamed."""
        return min(num, self.images.most) if isinstance(self.images, Streamed) else num


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
    sizes = source.sizes() if isinstance(source, ShardSource) else Counter(_read_all(source, source.size, untracked))
    return Inspection(source.name, len(source), dict(sizes), source.class_names)


def load(
    source: Source,
    size: int,
    *,
    memory_bytes: int = MAX_MEMORY_BYTES,
    threads: int = NUM_THREADS,
    track: Track = untracked,
) -> PictureSet:
    """The pictures at `size` x `size`: centre crop to a square, antialiased Lanczos. Grey if all are grey.

    A set that fits into half of `memory_bytes`, counted as colour, is decoded into memory. A larger one is streamed:
    gone through once now (tar shards are not, their index knows), then decoded by `threads` when it is asked for, and
    the same pictures come out. Raises CountermarkError for unreadable pictures, UsageError when not even one fits.
    """
    most = memory_bytes // 2 // (size * size * COLOURS)  # before decoding nobody knows which are grey
    if most < 1:
        raise UsageError(
            f"data: a picture of {size} px is over half the memory of {memory_bytes / 2**30:g} GiB; give more of it"
        )
    images: Pictures
    images, units = _hold(source, size, track) if len(source) <= most else _stream(source, size, most, threads, track)
    return PictureSet(source.name, images, source.classes, source.class_names, units)


def _hold(source: Source, size: int, track: Track) -> tuple[np.ndarray, list[str]]:
    def read(index: int) -> tuple[np.ndarray, str]:
        image, unit = source.read(index)
        return fitted(image.samples, size), unit

    images = np.empty((len(source), size, size, 1), np.uint8)
    units: list[str] = []
    for i, (samples, unit) in enumerate(_read_all(source, read, track)):
        if samples.shape[2] > images.shape[3]:
            grey, images = images, np.empty((*images.shape[:3], COLOURS), np.uint8)
            images[:i] = grey[:i]
        images[i] = samples
        units.append(unit)
    return images, units


def _stream(source: Source, size: int, most: int, threads: int, track: Track) -> tuple[Streamed, list[str]]:
    channels, units = source.known() if isinstance(source, ShardSource) else _known(source, track)
    shape = (size, size, channels)

    def decode(index: int) -> np.ndarray:
        image, unit = source.read(index)
        if unit != units[index]:
            raise CountermarkError(f"{source.label(index)}: changed while it was in use; run the same command again")
        samples = np.broadcast_to(fitted(image.samples, size), shape).copy()  # a crop would keep the whole alive
        samples.flags.writeable = False
        return samples

    return Streamed(Decoded(decode, most, threads), np.arange(len(source)), shape), units


def _known(source: Source, track: Track) -> tuple[int, list[str]]:
    """(the most channels, the units) of all pictures, of which each is decoded once."""

    def know(index: int) -> tuple[int, str]:
        image, unit = source.read(index)
        return image.channels, unit

    channels, units = zip(*_read_all(source, know, track), strict=True)
    return max(channels), list(units)


def _read_all(source: Source, read: Callable[[int], T], track: Track) -> Iterator[T]:
    """`read(i)` for every picture. Raises CountermarkError that counts the unreadable ones and names the first."""
    bad: list[CountermarkError] = []
    with closing(attempts(read, len(source), track)) as outcomes:
        for outcome in outcomes:
            if isinstance(outcome, CountermarkError):
                bad.append(outcome)
            elif not bad:
                yield outcome
            if len(bad) > MAX_UNREADABLE:
                break
    if bad:
        count = f"more than {MAX_UNREADABLE}" if len(bad) > MAX_UNREADABLE else str(len(bad))
        raise unreadable(count, len(source), bad[0])


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
        self._order = lru_cache(maxsize=2)(self._drawn)  # what is read ahead may be of the next epoch

    def at(self, position: int, num: int, step: int = 1) -> Batch:
        chosen = self._places(position, num, step)
        images, classes = self.pictures.images, self.pictures.classes
        batch = Batch(images[chosen], None if classes is None else classes[chosen])
        if isinstance(images, Streamed):
            images.expect(self._places(position + num * step, BATCHES_AHEAD * num, step))
        return batch

    def _places(self, position: int, num: int, step: int) -> np.ndarray:
        epochs = (divmod(p, len(self.pictures.units)) for p in range(position, position + num * step, step))
        return np.array([self._order(epoch)[place] for epoch, place in epochs])

    def _drawn(self, epoch: int) -> np.ndarray:
        return np.random.default_rng(derive(self.seed, "order", epoch)).permutation(len(self.pictures.units))
