"""`countermark detect`: a verdict on files, with what it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from countermark.core.errors import UsageError
from countermark.forensics.detector import Detector
from countermark.forensics.evidence import detect
from countermark.training.run import check_writable


def detect_files(
    files: Sequence[str], *, detectors: Sequence[str] = (), model: str | None = None, heatmap: str | None = None
) -> list[dict[str, Any]]:
    """An entry a file, in the shape of `detect --json`. detectors: runs of trained detectors; model: FILE.py:SPEC
    for those of a model of the user's own."""
    if heatmap is not None:
        if not detectors:
            raise UsageError(f"heatmap: {heatmap}: only detectors find evidence at places; give --detector")
        check_writable(Path(heatmap), "heatmap")
    loaded = [Detector.load(Path(run), model) for run in detectors]
    return [detect(file, loaded, heatmap) for file in files]


def as_lines(entry: dict[str, Any]) -> list[str]:
    """The verdict on one file, as people read it. What comes from the file is still to be escaped."""
    p = "" if entry["p_synthetic"] is None else f", p_synthetic {entry['p_synthetic']:.3f}"
    made_by = f", made by {entry['generator']}" if entry.get("generator") else ""
    head = f"{entry['path']}: {entry['verdict']} (decided by {entry['decided_by']}{p}{made_by})"
    return [head, *(f"  {reason}" for reason in entry["reasons"])]
