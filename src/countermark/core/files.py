"""Files that are whole or absent: atomic writes, bounded reads, content hashes."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from countermark.core.errors import CountermarkError

_PARTIAL = ".partial-"


def sha256_hex(data: bytes) -> str:
    """The SHA-256 of `data` as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write `data` beside `path`, flush it to the disk, then rename: readers see the old file or the new one, whole.

    Raises CountermarkError when the folder can't be written or the disk is full; nothing is left behind then.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=_PARTIAL)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise CountermarkError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another place"
        ) from error
    except BaseException:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise


def sweep(folder: Path) -> None:
    """Delete what writers that were killed left in `folder`. Call it only where no other process writes."""
    for path in folder.glob(f"{_PARTIAL}*"):
        if path.is_file():
            path.unlink(missing_ok=True)


def read_bounded(path: Path, limit_bytes: int) -> bytes:
    """The bytes of a regular file; CountermarkError when it is missing, not a regular file, or over the limit."""
    try:
        if not path.exists():
            raise CountermarkError(f"{path}: no such file")
        if not path.is_file():
            raise CountermarkError(f"{path}: not a regular file")
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            data = stream.read(min(size, limit_bytes) + 1)
    except (OSError, ValueError) as error:
        raise CountermarkError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if len(data) > limit_bytes:
        raise CountermarkError(f"{path}: larger than the limit of {limit_bytes} bytes")
    return data
