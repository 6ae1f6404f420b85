"""States on disk: a folder of safetensors and one JSON record that holds the sha256 of each; whole, or absent.

    state-000000128000/
      networks.safetensors, averages.safetensors, ...   one file a group of tensors
      state.json    {"format", "version", "nimg", "files": {name: sha256}, "record": {...}, "sha256": of all that}

Nothing here is ever unpickled. States hold no clock times and no paths, so equal trainings give equal bytes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from countermark.core.errors import CountermarkError
from countermark.core.files import read_bounded, sha256_hex, sweep, write_atomic

FORMAT = "countermark-state"
VERSION = 1
MAX_TENSOR_FILE_BYTES = 64 * 2**30
MAX_RECORD_BYTES = 16 * 2**20
_STATE_NAME = re.compile(r"state-(\d{1,15})\Z")
_PARTIAL = ".partial-state"


def state_folder(run: Path, nimg: int) -> Path:
    """Where the state after `nimg` images lies."""
    return run / f"state-{nimg}"


def states(run: Path) -> list[Path]:
    """The states of a run, oldest first."""
    found = [(int(match[1]), path) for path in run.glob("state-*") if (match := _STATE_NAME.match(path.name))]
    return [path for _, path in sorted(found)]


def save_state(run: Path, nimg: int, groups: Mapping[str, Mapping[str, Tensor]], record: Mapping[str, Any]) -> Path:
    """Write a state in full beside its place, flush it, then rename it there. A state that exists already is kept.

    Raises CountermarkError when the disk is full or the folder can't be written; earlier states stay as they were.
    """
    target = state_folder(run, nimg)
    if target.exists():
        return target
    partial = run / f"{_PARTIAL}-{nimg}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        files = {}
        for name, tensors in groups.items():
            data = save_tensors({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()})
            write_atomic(partial / f"{name}.safetensors", data)
            files[f"{name}.safetensors"] = sha256_hex(data)
        document = {"format": FORMAT, "version": VERSION, "nimg": nimg, "files": files, "record": dict(record)}
        write_atomic(partial / "state.json", _canonical({**document, "sha256": sha256_hex(_canonical(document))}))
        _flush_folder(partial)
        os.replace(partial, target)
        _flush_folder(run)
    except OSError as error:
        raise CountermarkError(f"cannot write {target}: {error.strerror or error}; free space and run again") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def load_state(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The groups of tensors and the record of a state, after every file's sha256 has been checked.

    Raises CountermarkError for a folder that is damaged, was written by something else, or by a newer version.
    """
    document = _read_document(folder)
    groups = {}
    for name, expected in document["files"].items():
        data = read_bounded(folder / name, MAX_TENSOR_FILE_BYTES)
        if sha256_hex(data) != expected:
            raise CountermarkError(
                f"{folder}: {name} is damaged (its sha256 is not the one recorded); delete {folder.name} to fall back "
                "to the state before it"
            )
        try:
            groups[name.removesuffix(".safetensors")] = load_tensors(data)
        except Exception as error:  # the reader has errors of its own
            raise CountermarkError(f"{folder}: {name} holds no tensors ({type(error).__name__})") from error
    return groups, {**document["record"], "nimg": document["nimg"]}


def _read_document(folder: Path) -> dict[str, Any]:
    try:
        document = json.loads(read_bounded(folder / "state.json", MAX_RECORD_BYTES))
        if document["format"] != FORMAT:
            raise CountermarkError(f"{folder}: not a state of Countermark (format {document['format']!r})")
        if document["version"] != VERSION:
            raise CountermarkError(
                f"{folder}: state version {document['version']!r}, this is a reader of version {VERSION}; "
                "use the Countermark that wrote it"
            )
        if document.pop("sha256") != sha256_hex(_canonical(document)):
            raise CountermarkError(f"{folder}: state.json is damaged (sha256); delete {folder.name} to fall back")
        names = document["files"]
        if not all(re.fullmatch(r"[\w-]+\.safetensors", name) for name in names):
            raise CountermarkError(f"{folder}: state.json names files outside the state")
        return {"files": dict(names), "record": dict(document["record"]), "nimg": int(document["nimg"])}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CountermarkError(f"{folder}: state.json is damaged or foreign ({type(error).__name__})") from error


def _canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, indent=1, sort_keys=True).encode()


def flat(groups: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of all groups as `name.key`; `below` takes one group out again."""
    return {f"{name}.{key}": tensor for name, tensors in groups.items() for key, tensor in tensors.items()}


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of a group whose names start with `prefix.`, without it."""
    return {key.removeprefix(f"{prefix}."): t for key, t in tensors.items() if key.startswith(f"{prefix}.")}


def prune_states(run: Path, keep: int, spared: Path | None = None) -> None:
    """Delete all but the newest `keep` states and the one `spared`, and what an interrupted writer left."""
    _delete(run, [path for path in states(run)[:-keep] if path != spared])


def drop_states(run: Path, after_nimg: int) -> None:
    """Delete the states of more than `after_nimg` images, newest first."""
    later = [path for path in states(run) if int(path.name.removeprefix("state-")) > after_nimg]
    _delete(run, later[::-1])


def _delete(run: Path, doomed: list[Path]) -> None:
    for path in doomed:
        # A deletion that is interrupted must not leave half a state under a state's name.
        os.replace(path, run / f"{_PARTIAL}-old-{path.name}")
    for path in run.glob(f"{_PARTIAL}*"):
        shutil.rmtree(path, ignore_errors=True)
    sweep(run)


def _flush_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
