"""The demo's generator and detector against the bars, and the same after ten times longer training.

Lengths are in images, so that the figures do not depend on what else the machine does: 70,000 is about what the demo's
three minutes show on a quiet machine.

python -m benchmarks.demo_quality [--images 70000 700000]
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


def measure(nimg: int, folder: Path) -> list[object]:
    """One row: the generator after `nimg` images, and a detector trained against it."""
    run, detector = folder / f"run{nimg}", folder / f"detector{nimg}"
    with TrainingBar() as bar:
        train_model(demo.MODEL, data=demo.DATA, out=run, images=nimg, progress=bar.update)
    with TrainingBar() as bar:
        train_model(demo.DETECTOR, data=demo.DATA, against=run, out=detector, progress=bar.update)
    trained = load_run(run)
    pictures = load(open_source(demo.DATA), trained.settings.size)
    quality = demo.class_quality(run, pictures)
    found = evaluate(run, data=demo.DATA)
    verdicts = demo.judge(detector, run, pictures)
    figures = [found[name] for name in ("coverage", "density", "fd", "kid")] + [verdicts["auc"], verdicts["seen"]]
    for bar, held in {
        "85% confident": quality["confident"] >= 0.85,
        "every class 4%": min(quality["class_shares"]) >= 0.04,
        "coverage .6": found["coverage"]["value"] >= 0.6,
        "AUC .95": verdicts["auc"]["value"] >= 0.95,
        "8% of real pictures called synthetic": verdicts["seen"]["value"] <= 0.08,
    }.items():
        record.require(held, f"{bar} after {nimg} images")
    return [trained.nimg, quality["confident"], min(quality["class_shares"]), *map(record.with_interval, figures)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[70_000, 700_000])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        rows = [measure(nimg, Path(name)) for nimg in arguments.images]
    record.write("demo_quality", "python -m benchmarks.demo_quality", HEADER, rows)


if __name__ == "__main__":
    main()
