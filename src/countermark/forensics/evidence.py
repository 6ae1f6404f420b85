"""`detect`: all that is known of one file, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from countermark.core.errors import CountermarkError
from countermark.core.files import write_atomic
from countermark.core.media import Image, read_image
from countermark.forensics.verdict import decide
from countermark.provenance.verify import verify

if TYPE_CHECKING:
    from countermark.forensics.detector import Detector


def detect(path: str | Path, detectors: Sequence[Detector] = (), heatmap: str | Path | None = None) -> dict[str, Any]:
    """What `provenance.verify` finds in the file at `path`, and verdict, decided_by, p_synthetic, detectors, reasons
    and generator, as `verdict.decide` gives them; {path, error} for a file that can't be read.

    Detectors are not asked about clips: their error rates are of pictures, without the traces of a video's coding.
    heatmap: a folder that gets a picture for each detector that could look, named by `heatmap.file_name`.
    Raises CountermarkError when that folder can't be written.
    """
    evidence = verify(Path(path))
    if "error" in evidence:
        return evidence
    if evidence["media"] == "video":
        return {**evidence, **decide(evidence, [])}
    try:
        images = [read_image(Path(path))] if detectors else []
    except CountermarkError as error:
        return {"path": str(path), "error": str(error)}
    judgements = [detector.judge(images)[0] for detector in detectors]
    if heatmap is not None:
        looked = [d for d, judgement in zip(detectors, judgements, strict=True) if judgement.p_synthetic is not None]
        try:
            maps = _heatmaps(Path(path), evidence["sha256"], images, looked)
        except CountermarkError as error:  # of this picture; one of the folder concerns every file
            return {"path": str(path), "error": str(error)}
        for name, data in maps.items():
            write_atomic(Path(heatmap) / name, data)
    return {**evidence, **decide(evidence, judgements)}


def _heatmaps(path: Path, sha256: str, images: Sequence[Image], detectors: Sequence[Detector]) -> dict[str, bytes]:
    """The encoded heat map of each of `detectors` by its file's name."""
    from countermark.forensics.heatmap import encoded, file_name

    return {
        file_name(path, sha256, detector.name, detector.calibration.network_sha256): encoded(
            images[0], detector.heatmap(images[0])
        )
        for detector in detectors
    }
