"""Packing a source: StyleGAN's zip, or tar shards in webdataset's format.

Pictures that are files are copied byte for byte, so that what is in them, marks too, survives; others, and all of them
where a size is asked for, become PNG. Equal pictures give equal packs.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.media import MAX_SIDE, SUFFIXES, Image, sniff
from countermark.core.text import printable
from countermark.core.tracking import Track, untracked
from countermark.data.encoded import EncodedSource
from countermark.data.image import fitted
from countermark.data.shards import is_shards, shard_paths
from countermark.data.sources import Source
from countermark.provenance.encode import encode
from countermark.training.run import check_writable

IN_A_FOLDER = 1000  # pictures, as in StyleGAN's zips
MAX_ZIP_LABELS = 1_000_000  # what a dataset.json that is read back may hold
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


def places(out: str | Path, source: str | Path, size: int | None) -> list[Path]:
    """The files that a pack called `out` consists of. Raises UsageError when it cannot be written there."""
    name = str(out)
    if size is not None and not 1 <= size <= MAX_SIDE:
        raise UsageError(f"size: {size} is not a number of pixels from 1 to {MAX_SIDE}")
    if not is_shards(name) and not name.lower().endswith(".zip"):
        raise UsageError(f"pack: {printable(name)} is neither x.zip, nor x.tar, nor 'shards/{{000..009}}.tar'")
    paths = shard_paths(name, "pack") if is_shards(name) else [Path(name)]
    folder = paths[0].parent
    if any(path.parent != folder for path in paths):
        raise UsageError(f"pack: the range of {printable(name)} is in a folder's name; put it into the file's")
    if there := [path for path in paths if os.path.lexists(path)]:
        raise UsageError(f"pack: {printable(there[0])} is there already; remove it or choose another name")
    if Path(source).is_dir() and folder.resolve().is_relative_to(Path(source).resolve()):
        raise UsageError(f"pack: {printable(name)} lies inside the source; choose another place")
    check_writable(folder, "pack")
    return paths


def pack(
    source: Source, chosen: Sequence[int], outs: Sequence[Path], *, size: int | None = None, track: Track = untracked
) -> dict[str, Any]:
    """Write the pictures `chosen` of a source to a zip or to shards; all of it appears at the end, or nothing.

    Returns files, pictures and bytes. Raises UsageError for fewer pictures than shards, CountermarkError for a picture
    that became unreadable and for a full disk.
    """
    if len(chosen) < len(outs):
        raise UsageError(f"pack: {len(chosen)} pictures do not fill {len(outs)} files; give a shorter range")
    write = _write_zip if outs[0].suffix.lower() == ".zip" else _write_tar
    bounds = [len(chosen) * i // len(outs) for i in range(len(outs) + 1)]
    tracked = iter(track(range(len(chosen)), "packing", len(chosen)))
    try:
        outs[0].parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=outs[0].parent, prefix=".partial-") as partial:
            for out, start, stop in zip(outs, bounds, bounds[1:], strict=False):
                numbers = ((number, chosen[next(tracked)]) for number in range(start, stop))
                write(Path(partial) / out.name, source, numbers, size)
            next(tracked, None)  # the end of its bar
            num_bytes = sum((Path(partial) / out.name).stat().st_size for out in outs)
            for out in outs:
                os.replace(Path(partial) / out.name, out)
    except OSError as error:
        raise CountermarkError(
            f"cannot write {printable(outs[0])}: {error.strerror or error}; free space or choose another place"
        ) from error
    return {"files": [str(out) for out in outs], "pictures": len(chosen), "bytes": num_bytes}


def _write_zip(path: Path, source: Source, numbers: Iterable[tuple[int, int]], size: int | None) -> None:
    """StyleGAN's layout: 00000/img00000000.png, ..., and dataset.json with {"labels": [[name, class], ...]} or null."""
    classes, labels = source.classes, []
    if classes is not None and len(classes) > MAX_ZIP_LABELS:
        raise UsageError(f"pack: {len(classes)} labels are too many for a zip's dataset.json; pack into tar shards")
    with path.open("xb") as stream:
        with zipfile.ZipFile(stream, "w") as archive:
            for number, index in numbers:
                data, suffix = _file(source, index, size)
                name = f"{number // IN_A_FOLDER:05d}/img{number:08d}{suffix}"
                archive.writestr(_plain(name), data)
                labels.append([name, 0 if classes is None else int(classes[index])])
            document = {"labels": None if classes is None else labels}
            archive.writestr(_plain("dataset.json"), json.dumps(document))
        _flush(stream)


def _write_tar(path: Path, source: Source, numbers: Iterable[tuple[int, int]], size: int | None) -> None:
    """webdataset's layout: 00000000.png beside 00000000.cls, which holds the class."""
    with path.open("xb") as stream:
        with tarfile.TarFile(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for number, index in numbers:
                data, suffix = _file(source, index, size)
                _add(archive, f"{number:08d}{suffix}", data)
                if source.classes is not None:
                    _add(archive, f"{number:08d}.cls", str(source.classes[index]).encode())
        _flush(stream)


def _flush(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _file(source: Source, index: int, size: int | None) -> tuple[bytes, str]:
    """A picture as a file's bytes, with the suffix of what they are."""
    if size is None and isinstance(source, EncodedSource):
        data = source.encoded(index)
        return data, SUFFIXES[sniff(data) or "png"]
    samples = source.read(index)[0].samples
    return encode(Image(samples if size is None else fitted(samples, size)), "png"), ".png"


def _plain(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _LONG_AGO)
    info.create_system, info.external_attr = 3, 0o644 << 16
    return info


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))
