"""A run is a folder: config.json, metrics.jsonl, timing.jsonl, tensorboard/, samples/ and the newest states.

config.json says what is trained on what; metrics.jsonl has one JSON object a line and no clock times, so that equal
trainings give equal bytes; times go to timing.jsonl. A lock keeps a second process out.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tempfile
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import filelock

from countermark.core import checkpoint
from countermark.core.errors import CountermarkError, UsageError
from countermark.core.files import read_bounded, sha256_hex, write_atomic
from countermark.core.spec import Schedule, Settings

FORMAT = "countermark-run"
VERSION = 1
MAX_CONFIG_BYTES = 16 * 2**20
# What no sound run exceeds: sides, widths and classes; blocks over all stages, or at a side; numbers of images.
MAX_COUNT, MAX_BLOCKS, MAX_NIMG = 2**17, 256, 10**15


def settings_to_json(settings: Settings) -> dict[str, Any]:
    """Settings as plain JSON values; a Schedule becomes {"start", "end", "over_nimg", "shape"}."""
    return {
        field.name: dataclasses.asdict(value) if isinstance(value, Schedule) else value
        for field in dataclasses.fields(settings)
        for value in [getattr(settings, field.name)]
    }


def settings_from_json(kind: type[Settings], values: Mapping[str, Any]) -> Settings:
    """The inverse of `settings_to_json` for the settings class `kind`.

    A run is data from outside: raises TypeError for unknown names, values of another type, and numbers out of range.
    """
    fields: dict[str, Any] = {k: Schedule(**v) if isinstance(v, dict) else _tuples(v) for k, v in values.items()}
    settings = kind(**fields)
    for name, hint in get_type_hints(kind).items():
        value = getattr(settings, name)
        limit = MAX_NIMG if name.endswith("_nimg") else MAX_BLOCKS if name.startswith("depth") else MAX_COUNT
        sound = _is_sound(value, hint, limit) and not (name in ("size", "batch", "accumulate") and value < 1)
        if not sound or (name == "blocks" and sum(value) > MAX_BLOCKS):
            raise TypeError(f"{name} is not a value that it can have")
    return settings


def _is_sound(value: Any, hint: Any, limit: int) -> bool:
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_is_sound(value, option, limit) for option in options)
    if origin is Literal:
        return value in options
    if origin is tuple:
        return isinstance(value, tuple) and all(_is_sound(item, options[0], limit) for item in value)
    if hint is Schedule:
        return isinstance(value, Schedule) and all(
            _is_sound(number, float, limit) for number in (value.start, value.end, value.over_nimg or math.nan)
        )
    if hint is float:
        return type(value) in (int, float) and abs(value) <= MAX_NIMG
    return type(value) is hint and (hint is not int or 0 <= value <= limit)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def document(config: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json holds for a training of `config`."""
    return {"format": FORMAT, "version": VERSION, **config}


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Start a run, or check that it is the same one, as `check_config` does. Call it under the run's lock."""
    check_config(folder, config)
    if newest_state(folder) is None:
        write_atomic(folder / "config.json", json.dumps(dict(config), indent=1, sort_keys=True).encode())


def check_config(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the run in the folder, or `config` (as `document` gives it) where none has begun.

    Raises UsageError when the folder holds a run of another config, or other things.
    """
    if newest_state(folder) is None:  # nothing was trained yet: a first try with a wrong setting leaves no trap
        _refuse_foreign(folder)
        return dict(config)
    begun = read_config(folder)
    known, now = (_completed(json.loads(json.dumps(dict(c)))) for c in (begun, config))
    for key in sorted({*known, *now}):
        if known.get(key) != now.get(key):
            what = _difference(known.get(key), now.get(key))
            raise UsageError(
                f"out: {folder} is a run with another {key} ({what}); choose another folder or the same setting"
            )
    return begun


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """A config with the defaults of those settings of all models that came after the run was started."""
    defaults = json.loads(json.dumps(settings_to_json(Settings(size=0))))
    return {**config, "settings": {**defaults, **config.get("settings", {})}}


def _difference(old: Any, new: Any) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        key = next(k for k in sorted({*old, *new}) if old.get(k) != new.get(k))
        return f"{key}: {_difference(old.get(key), new.get(key))}"
    return f"{old} there, {new} now"


def _refuse_foreign(folder: Path) -> None:
    names = sorted(path.name for path in folder.glob("*") if path.name[0] != ".")
    strangers = [] if "config.json" in names else names
    if strangers:
        raise UsageError(f"out: {folder} holds files that are not a run ({strangers[0]}, ...); choose a new folder")


def is_run(folder: Path) -> bool:
    """Whether the folder holds a run."""
    return (folder / "config.json").is_file()


def read_config(folder: Path) -> dict[str, Any]:
    """The config of a run. Raises UsageError when the folder holds none, CountermarkError when it is damaged."""
    if not is_run(folder):
        raise UsageError(
            f"{folder} is not a run (no config.json); make one with: countermark train MODEL --out {folder}"
        )
    try:
        config = json.loads(read_bounded(folder / "config.json", MAX_CONFIG_BYTES))
        if config["format"] != FORMAT or config["version"] != VERSION:
            raise CountermarkError(f"{folder}: config.json is of another format or version")
        if not isinstance(config["model"], str) or not isinstance(config["settings"], dict):
            raise TypeError("model or settings")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CountermarkError(f"{folder}: config.json is damaged ({type(error).__name__})") from error
    return config


def run_id(config: Mapping[str, Any]) -> str:
    """A run's name in manifests and registry: 16 hexadecimal digits of the hash of what was trained on what."""
    return sha256_hex(json.dumps(dict(config), sort_keys=True).encode())[:16]


def newest_state(folder: Path) -> Path | None:
    """The newest state of a run, or None."""
    found = checkpoint.states(folder)
    return found[-1] if found else None


def check_writable(folder: Path, argument: str = "out") -> None:
    """Raises UsageError when nothing can be written in the folder that `argument` names, which need not be there yet.

    Nothing is made, so that a command that is refused for other reasons later leaves no folder behind.
    """
    try:
        there = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise UsageError(f"{argument}: {folder} cannot be written ({error.strerror}); choose another folder") from error


def check_output(folder: Path, what: str) -> None:
    """As `check_writable`, for a folder of `what` a run gives. Raises UsageError where it is itself a run, too."""
    check_writable(folder)
    if is_run(folder):
        raise UsageError(f"out: {folder} is a run; choose another folder for {what}")


def check_output_file(path: Path, suffix: str, what: str) -> None:
    """As `check_output`, for a file `path` of that suffix. Raises UsageError for a folder and another suffix, too."""
    if path.suffix.lower() != suffix:
        raise UsageError(f"out: {path} is no name for {what}; use {suffix}, as in {path.stem or 'out'}{suffix}")
    check_output(path.parent, what)
    if path.is_dir():
        raise UsageError(f"out: {path} is a folder; give the name of a file in it")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run, whose folder is made if need be, against other processes; when this one dies, the operating system
    lets go. Raises UsageError when another one holds it, and for a folder that is no place for a run."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"out: {folder} cannot be made ({error.strerror}); choose another folder") from error
    for path in sorted(folder.iterdir()):  # a run may come from a stranger: nothing may be written elsewhere, or hang
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise UsageError(f"out: {path} is a link or a device; a run is trained in files of its own")
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise UsageError(f"out: {folder} is being trained by another process; wait for it or choose another") from error
    except OSError as error:
        raise UsageError(f"out: {folder} cannot be locked ({error.strerror}); choose another folder") from error
    try:
        yield
    finally:
        lock.release()


class Journal:
    """A file of one JSON object a line that can be cut back to where a state was written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def cut(self, num_bytes: int) -> None:
        """Forget what was written after the state. Raises CountermarkError when the file is shorter than that."""
        if len(self) < num_bytes:
            raise CountermarkError(f"{self.path} is shorter than its state says; the run can't be resumed exactly")
        if len(self) > num_bytes:
            with self.path.open("r+b") as stream:
                stream.truncate(num_bytes)

    def mend(self) -> None:
        """Forget a last line that an interruption left unfinished."""
        if self.path.exists():
            self.cut(self.path.read_bytes().rfind(b"\n") + 1)

    def flush(self) -> None:
        """Bring what was appended to the disk. Raises CountermarkError when it is full."""
        if self.path.exists():
            with self._writing(), self.path.open("rb") as stream:
                os.fsync(stream.fileno())

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row. Raises CountermarkError when the disk is full."""
        with self._writing(), self.path.open("a") as stream:
            stream.write(json.dumps(dict(row)) + "\n")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CountermarkError(f"cannot write {self.path}: {error.strerror}; free space and run again") from error

    def rows(self) -> list[dict[str, Any]]:
        """All whole rows; a last line that an interruption cut is left out."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text().split("\n")[:-1]]
