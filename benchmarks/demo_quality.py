"""The demo's generator and detector against the bars, and the generator after ten times longer training.

Trains for 3 and for 30 minutes on this machine: about 40 minutes in all. Train while nothing else runs.

python -m benchmarks.demo_quality [--minutes 3 30]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks import record
from countermark.apps.progress import TrainingBar
from countermark.data.image import load
from countermark.data.sources import open_source
from countermark.jobs import demo
from countermark.jobs.evaluate import evaluate
from countermark.jobs.train import train_model
from countermark.training.trained import load_run

HEADER = [
    "minutes",
    "images",
    "confident >= .9",
    "rarest class",
    "coverage",
    "density",
    "FD (own)",
    "KID (own)",
    "detector AUC",
    "real called synthetic",
]


def measure(minutes: float, folder: Path) -> list[object]:
    """One row: the generator after `minutes`, and a detector trained against it."""
    run, detector = folder / f"run{minutes:g}", folder / f"detector{minutes:g}"
    with TrainingBar() as bar:
        train_model(demo.MODEL, data=demo.DATA, out=run, minutes=minutes, progress=bar.update)
    with TrainingBar() as bar:
        train_model(
            demo.DETECTOR, data=demo.DATA, against=run, out=detector, images=demo.DETECTOR_NIMG, progress=bar.update
        )
    trained = load_run(run)
    pictures = load(open_source(demo.DATA), trained.settings.size)
    quality = demo.class_quality(run, pictures)
    found = evaluate(run, data=demo.DATA)
    verdicts = demo.judge(detector, run, pictures)
    figures = [found[name]["value"] for name in ("coverage", "density", "fd", "kid")]
    rates = [verdicts["auc"], verdicts["seen"]]
    return [minutes, trained.nimg, quality["confident"], min(quality["class_shares"]), *figures, *rates]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, nargs="+", default=[3, 30])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        rows = [measure(minutes, Path(name)) for minutes in arguments.minutes]
    record.write("demo_quality", "python -m benchmarks.demo_quality", HEADER, rows)


if __name__ == "__main__":
    main()
