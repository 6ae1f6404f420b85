"""`countermark verify`: the marks of files, for people, programs, or as a page."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from countermark.core.errors import UsageError
from countermark.core.files import write_atomic
from countermark.jobs.page import render
from countermark.provenance.verify import verify

PAGE_START = b"<!doctype html>"


def verify_files(files: Sequence[str], *, report: str | None = None) -> list[dict[str, Any]]:
    """An entry a file, in the shape of `verify --json`; `report` writes them as a page too.

    Raises UsageError when no page can be written there.
    """
    if report is not None:
        _check_place(Path(report))
    entries = [verify(file) for file in files]
    if report is not None:
        write_atomic(Path(report), render("verify.html", entries=entries).encode())
    return entries


def _check_place(report: Path) -> None:
    """Find out before the work whether its page can be written."""
    try:
        if report.is_dir():
            raise UsageError(f"report: {report} is a folder; give the name of a file, such as report.html")
        if report.exists() and not _is_page(report):  # such as the first of the files, where the name was forgotten
            raise UsageError(f"report: {report} is there and is no page; give another name, such as report.html")
        report.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=report.parent).close()
    except OSError as error:
        raise UsageError(f"report: {report} cannot be written ({error.strerror}); choose another place") from error


def _is_page(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(len(PAGE_START)).lower() == PAGE_START


def as_lines(entry: dict[str, Any]) -> list[str]:
    """The evidence on one file, as people read it. What comes from the file is still to be escaped."""
    credentials, mark = entry["credentials"], entry["watermark"]
    signed = credentials["state"] + (f", signed by {credentials['issuer']}" if credentials["issuer"] else "")
    found = f"{mark['kind']} {mark['payload']}" if mark["present"] else f"absent ({mark['reason']})"
    if mark["present"]:
        found += ", authenticated" if mark["authenticated"] else f" ({mark['reason']})"
    if "frames_read" in mark:
        found += f", in {mark['frames_marked']} of {mark['frames_read']} frames read"
    lines = [
        entry["path"],
        f"  credentials  {signed}",
        *(f"               {reason}" for reason in credentials["reasons"]),
        f"  says         {credentials['digital_source_type'] or 'nothing'}, by {credentials['generator'] or 'nobody'}",
        f"  watermark    {found}",
        f"  labels       iptc: {entry['labels']['iptc']['value'] or 'none'}",
        f"  registry     {entry['registry'].get('error') or entry['registry']['match']}",
    ]
    for name, standard in entry["standards"].items():
        lines.append(f"  {name:<12} {'met' if standard['met'] else 'missing: ' + '; '.join(standard['missing'])}")
    return lines
