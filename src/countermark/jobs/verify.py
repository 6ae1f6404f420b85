"""`countermark verify`: the marks of files, for people, programs, or as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from countermark.core.files import write_atomic
from countermark.jobs.page import check_page, render
from countermark.provenance.verify import verify


def verify_files(files: Sequence[str], *, report: str | None = None) -> list[dict[str, Any]]:
    """An entry a file, in the shape of `verify --json`; `report` writes them as a page too.

    Raises UsageError when no page can be written there.
    """
    if report is not None:
        check_page(Path(report))
    entries = [verify(file) for file in files]
    if report is not None:
        write_atomic(Path(report), render("verify.html", entries=entries).encode())
    return entries


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
