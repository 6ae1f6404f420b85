"""Trained models that ship, named MODEL@SET: run folders whose state holds averages in bfloat16 and nothing else.

`python -m countermark.jobs.ship` makes them, each with its model card. Whatever takes a RUN takes such a name too.
"""

from __future__ import annotations

from pathlib import Path

from countermark.core.errors import UsageError
from countermark.core.text import named, printable
from countermark.training.run import is_run

WEIGHTS = Path(__file__).parents[1] / "weights"


def shipped() -> dict[str, Path]:
    """The folders of the trained models that ship, by name."""
    return {folder.name: folder for folder in sorted(WEIGHTS.glob("*@*")) if is_run(folder)}


def run_folder(run: str | Path) -> Path:
    """The folder of RUN: a path, or the name of a trained model that ships; a path that exists wins.

    Raises UsageError for a MODEL@SET that is neither.
    """
    folder = Path(run)
    if "@" not in folder.name or folder.name != str(run) or folder.exists():
        return folder
    known = shipped()
    if str(run) not in known:
        have = f"these ship: {named(known)}" if known else "none ships with this version"
        raise UsageError(f"{printable(run)} is neither a run folder nor a trained model; {have}")
    return known[str(run)]
