"""A small part of `python -m benchmarks.hostile`: one file of each kind and some more."""

import sys
from pathlib import Path

import pytest

from benchmarks import hostile
from benchmarks.hostile import Job, Outcome


@pytest.mark.skipif(sys.platform != "linux", reason="limits on memory and times of processes as Linux has them")
def test_hostile_files_crash_nothing_and_change_nothing(tmp_path: Path) -> None:
    test = hostile.trial(tmp_path, num=30, seed=1, thorough=False)
    assert test.num_jobs > 100
    assert [fault for tally in test.tallies.values() for fault in tally.faults] == []


def verdict(outcome: Outcome, tmp_path: Path, page: str = "") -> list[str]:
    (tmp_path / "page.html").write_text(page)
    job = Job("", tmp_path, ["verify", "--json"], tmp_path, tmp_path / "page.html")
    return hostile.faults(job, outcome, hostile.tags_of("<html><body><p>"))


def test_a_quiet_call_has_no_fault(tmp_path: Path) -> None:
    assert verdict(Outcome(1, 0.1, "[]\n", "countermark: x: no such file\n"), tmp_path, "<p>&lt;b&gt;</p>") == []


@pytest.mark.parametrize(
    ("outcome", "page"),
    [
        (Outcome(None, err="no answer"), ""),
        (Outcome(3, 0.1, "[]"), ""),
        (Outcome(0, 11.0, "[]"), ""),
        (Outcome(0, 0.1, "["), ""),
        (Outcome(0, 0.1, "[]", "Warning: x"), ""),
        (Outcome(1, 0.1, "[]", "countermark: \x1b[31m"), ""),
        (Outcome(0, 0.1, '["\u202e"]'), ""),
        (Outcome(0, 0.1, f'["{hostile.SECRET}"]'), ""),
        (Outcome(0, 0.1, "[]"), "<p><script>"),
        (Outcome(0, 0.1, "[]"), "<p onclick=x>"),
        (Outcome(0, 0.1, "[]"), "<!-- x -->"),
    ],
)
def test_every_fault_is_seen(outcome: Outcome, page: str, tmp_path: Path) -> None:
    assert verdict(outcome, tmp_path, page)


def test_a_write_outside_is_seen(tmp_path: Path) -> None:
    for name in ("out", "cwd"):
        (tmp_path / name).mkdir()
    before = hostile.snapshot(tmp_path)
    (tmp_path / "out" / "allowed").touch()
    assert hostile.changed(before, hostile.snapshot(tmp_path)) == []
    (tmp_path / "cwd" / "owned").touch()
    assert hostile.changed(before, hostile.snapshot(tmp_path)) == [str(tmp_path / "cwd" / "owned")]
