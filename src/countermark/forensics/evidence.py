"""`detect`: all that is known of one file, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from countermark.core.errors import CountermarkError
from countermark.core.media import read_image
from countermark.forensics.verdict import decide
from countermark.provenance.verify import verify

if TYPE_CHECKING:
    from countermark.forensics.detector import Detector


def detect(path: str | Path, detectors: Sequence[Detector] = (), heatmap: str | Path | None = None) -> dict[str, Any]:
    """What `provenance.verify` finds in the file at `path`, and verdict, decided_by, p_synthetic, detectors, reasons
    and generator, as `verdict.decide` gives them; {path, error} for a file that can't be read.

    heatmap: a folder that gets a picture for each detector that could look (see `heatmap.save`).
    Raises CountermarkError when that folder can't be written.
    """
    evidence = verify(Path(path))
    if "error" in evidence:
        return evidence
    try:
        images = [read_image(Path(path))] if detectors else []
    except CountermarkError as error:
        return {"path": str(path), "error": str(error)}
    judgements = [detector.judge(images)[0] for detector in detectors]
    if heatmap is not None:
        from countermark.forensics.heatmap import save

        for detector, judgement in zip(detectors, judgements, strict=True):
            if judgement.p_synthetic is not None:
                save(images[0], detector.heatmap(images[0]), Path(heatmap), f"{Path(path).stem}.{detector.name}")
    return {**evidence, **decide(evidence, judgements)}
