import errno
import os
from pathlib import Path

import pytest

from countermark.core.errors import CountermarkError
from countermark.core.files import read_bounded, write_atomic


def test_write_atomic_replaces_whole(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.bin"
    write_atomic(path, b"one")
    write_atomic(path, b"two", mode=0o600)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == ["b.bin"]


def test_a_full_disk_leaves_the_old_file_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "b.bin"
    write_atomic(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CountermarkError, match=r"No space left.*free space"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["b.bin"]


def test_read_bounded_refuses_missing_large_and_special(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"12345")
    assert read_bounded(tmp_path / "big", 5) == b"12345"
    for path, limit, reason in (
        (tmp_path / "big", 4, "limit of 4"),
        (tmp_path / "none", 4, "no such"),
        (tmp_path, 4, "not a regular"),
    ):
        with pytest.raises(CountermarkError, match=reason):
            read_bounded(path, limit)
    os.mkfifo(tmp_path / "pipe")  # opening it would hang
    with pytest.raises(CountermarkError, match="not a regular"):
        read_bounded(tmp_path / "pipe", 4)
    with pytest.raises(CountermarkError, match=r"no such|cannot be read"):
        read_bounded(Path("bad\0name"), 4)
