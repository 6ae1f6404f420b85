"""What a list of tar shards holds, picture by picture: found once, then kept in the user's cache.

A sample is the files of one shard that share a key, their name up to its first dot (webdataset's rule): one picture,
and its class as a whole number in .cls, or as "label" in .json.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.files import read_bounded, sha256_hex, write_atomic
from countermark.core.home import home
from countermark.core.media import MAX_FILE_BYTES, MAX_SIDE, PICTURE_SUFFIXES, decode_image
from countermark.core.text import named, printable
from countermark.core.tracking import Track, untracked
from countermark.data.encoded import MAX_CLASSES, MAX_PICTURES, classes_by_folder, is_picture, numbered_classes
from countermark.data.reading import attempts
from countermark.data.tar import Member, members

VERSION = 1  # of what is kept: another one is made again
MAX_LABEL_BYTES = 2**20
MAX_INDEX_BYTES = 16 * 2**30
COLUMNS = {
    "shard": np.int32,
    "offset": np.int64,
    "size": np.int64,
    "width": np.int32,
    "height": np.int32,
    "channels": np.uint8,
    "sha256": np.uint8,
}


@dataclass(frozen=True)
class Index:
    """Pictures in the order of shards, then of each archive. columns: COLUMNS, each [N] (sha256 [N,32]).

    classes: int64 [N] or None. broken: what is wrong with a picture that cannot be decoded, by its number; its width,
    height and channels are 0.
    """

    columns: dict[str, np.ndarray]
    names: list[str]
    classes: np.ndarray | None
    class_names: list[str]
    broken: dict[int, str]


class Found(NamedTuple):
    """A picture of a shard, and its class if a file beside it says one."""

    shard: int
    member: Member
    label: int | None


@dataclass
class _Shard:
    """What one pass over a shard finds, by key."""

    pictures: dict[str, Member] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)


def index_of(paths: Sequence[Path], track: Track = untracked) -> Index:
    """The index of these shards: from the cache while they are of the same place, size and time, else made and kept.

    Raises UsageError when they hold no pictures or labels that do not fit, CountermarkError for damaged shards.
    """
    stats = [path.stat() for path in paths]
    known = [VERSION, *([os.path.abspath(p), s.st_size, s.st_mtime_ns] for p, s in zip(paths, stats, strict=True))]
    kept = home() / "cache" / f"shards-{sha256_hex(json.dumps(known).encode())[:32]}.safetensors"
    index = _read(kept, [stat.st_size for stat in stats]) if kept.exists() else None
    if index is None:
        index = build(paths, track)
        write_atomic(kept, _written(index))
    return index


def build(paths: Sequence[Path], track: Track = untracked) -> Index:
    """Read the shards from end to end, and decode every picture once, so that a broken one is known from then on."""
    found: list[Found] = []
    for shard in track(range(len(paths)), "reading shards", len(paths)):
        found += _samples(paths[shard], shard)
        if len(found) > MAX_PICTURES:
            raise UsageError(f"data: the shards hold more than {MAX_PICTURES} pictures")
    if not found:
        raise UsageError(f"data: {printable(paths[0])} holds no pictures ({named(PICTURE_SUFFIXES)})")
    classes, class_names = _classes(found, paths)
    columns = {name: np.zeros(len(found), kind) for name, kind in COLUMNS.items() if name != "sha256"}
    columns["sha256"] = np.zeros((len(found), 32), np.uint8)
    broken: dict[int, str] = {}

    def look(i: int) -> tuple[int, int, int]:
        data = read_at(paths[found[i].shard], found[i].member.offset, found[i].member.size)
        columns["sha256"][i] = np.frombuffer(bytes.fromhex(sha256_hex(data)), np.uint8)
        image = decode_image(data, name=printable(f"{paths[found[i].shard]}:{found[i].member.name}"))
        return image.width, image.height, image.channels

    for i, seen in enumerate(attempts(look, len(found), track, "indexing shards")):
        columns["shard"][i], columns["offset"][i], columns["size"][i] = found[i].shard, *found[i].member[1:]
        if isinstance(seen, CountermarkError):
            broken[i] = str(seen)
        else:
            columns["width"][i], columns["height"][i], columns["channels"][i] = seen
    return Index(columns, [one.member.name for one in found], classes, class_names, broken)


def read_at(path: Path, offset: int, size: int) -> bytes:
    """`size` bytes of a file from `offset` on. Raises CountermarkError when they are not there."""
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            data = stream.read(size)
    except OSError as error:
        raise CountermarkError(f"{printable(path)}: cannot be read ({error.strerror})") from error
    if len(data) < size:
        raise CountermarkError(f"{printable(path)}: became shorter while it was in use; run the same command again")
    return data


def _samples(path: Path, number: int) -> list[Found]:
    """The pictures of a shard with their labels."""
    found = _Shard()
    try:
        with path.open("rb") as stream:
            for member in members(stream, path):
                _take(found, member, stream, path)
    except OSError as error:
        raise CountermarkError(f"{printable(path)}: cannot be read ({error.strerror})") from error
    return [Found(number, member, found.labels.get(key)) for key, member in found.pictures.items()]


def _take(found: _Shard, member: Member, stream: BinaryIO, path: Path) -> None:
    """Note a member that is a picture or says a class; others are left."""
    folder, _, base = member.name.rpartition("/")
    stem, _, suffix = base.partition(".")
    key = f"{folder}/{stem}"
    where = printable(f"{path}:{member.name}")
    if is_picture(member.name):
        if key in found.pictures:
            raise CountermarkError(
                f"{where}: a second picture of the key {printable(stem)} (a name up to its first dot); take one out"
            )
        if member.size > MAX_FILE_BYTES:
            raise CountermarkError(f"{where}: a picture of {member.size} bytes is over the limit of {MAX_FILE_BYTES}")
        found.pictures[key] = member
    elif suffix.lower() in ("cls", "json") and not stem.startswith("."):
        label = _label(stream, member, where)
        if label is not None and (suffix.lower() == "cls" or key not in found.labels):
            found.labels[key] = label


def _label(stream: BinaryIO, member: Member, where: str) -> int | None:
    """The class that a .cls or .json says; None for a .json that is about other things."""
    if member.size > MAX_LABEL_BYTES:
        raise CountermarkError(f"{where}: {member.size} bytes are over the limit of {MAX_LABEL_BYTES} for a label")
    stream.seek(member.offset)
    data = stream.read(member.size)
    try:
        said = int(data) if member.name.lower().endswith(".cls") else _label_in(json.loads(data))
        if said is None:
            return None
        if type(said) is not int or not 0 <= said < MAX_CLASSES:
            raise ValueError("no class")
    except (ValueError, RecursionError) as error:
        raise CountermarkError(f"{where}: not a whole number from 0 to {MAX_CLASSES - 1} that names a class") from error
    return said


def _label_in(document: Any) -> Any:
    return document.get("label") if isinstance(document, dict) else None


def _classes(found: Sequence[Found], paths: Sequence[Path]) -> tuple[np.ndarray | None, list[str]]:
    labels = [one.label for one in found if one.label is not None]
    if not labels:
        return classes_by_folder([tuple(one.member.name.split("/")) for one in found])
    for one in found:
        if one.label is None:
            where = printable(f"{paths[one.shard]}:{one.member.name}")
            raise UsageError(f"data: {where} has no class, others have one; give each a .cls, or none")
    try:
        return numbered_classes(labels)
    except ValueError as error:
        raise UsageError(f"data: class {max(labels)} is too high for {len(labels)} pictures; number them from 0") from (
            error
        )


def _written(index: Index) -> bytes:
    more = {"names": index.names, "class_names": index.class_names, "broken": sorted(index.broken.items())}
    blob = np.frombuffer(json.dumps(more).encode(), np.uint8)
    classes = {} if index.classes is None else {"classes": index.classes}
    return safetensors.numpy.save({**index.columns, **classes, "more": blob})


def _read(path: Path, shard_sizes: Sequence[int]) -> Index | None:
    """The index that was kept; None when it is damaged, and is made again."""
    try:
        arrays = safetensors.numpy.load(read_bounded(path, MAX_INDEX_BYTES))
        more = json.loads(arrays["more"].tobytes())
        columns = {name: arrays[name] for name in COLUMNS}
        broken = {int(number): str(reason) for number, reason in more["broken"]}
        index = Index(columns, more["names"], arrays.get("classes"), more["class_names"], broken)
        return index if _sound(index, np.array(shard_sizes)) else None
    except (CountermarkError, safetensors.SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _sound(index: Index, shard_sizes: np.ndarray) -> bool:
    c, num = index.columns, len(index.names)
    shapes = {name: (num, 32) if name == "sha256" else (num,) for name in COLUMNS}
    if not num or any(c[name].shape != shapes[name] or c[name].dtype != COLUMNS[name] for name in COLUMNS):
        return False
    if index.classes is not None and not (
        index.classes.shape == (num,)
        and index.classes.dtype == np.int64
        and index.classes.min() >= 0
        and index.classes.max() < len(index.class_names)
    ):
        return False
    if c["shard"].min() < 0 or c["shard"].max() >= len(shard_sizes):
        return False
    whole = np.ones(num, bool)
    whole[list(index.broken)] = False
    return bool(
        all(isinstance(name, str) for name in (*index.names, *index.class_names))
        and c["offset"].min() >= 0
        and 0 <= c["size"].min() <= c["size"].max() <= MAX_FILE_BYTES
        and (c["offset"] + c["size"] <= shard_sizes[c["shard"]]).all()
        and all(((c[name][whole] > 0) & (c[name][whole] <= MAX_SIDE)).all() for name in ("width", "height"))
        and np.isin(c["channels"][whole], (1, 3)).all()
    )
