"""`countermark demo`: the whole way once, on real data, with a page that shows it.

Train a GAN, release samples, verify their marks, catch a tampered file, train a detector on pictures that the generator
never saw, ask it about held-out real pictures and unmarked samples, and write report.html.
"""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from countermark.core.errors import UsageError
from countermark.core.files import write_atomic
from countermark.core.media import Image, read_image
from countermark.core.tracking import Track, untracked
from countermark.data.image import PictureSet, load
from countermark.data.sources import open_source
from countermark.forensics.detector import Detector
from countermark.jobs import report
from countermark.jobs.detect import detect_files
from countermark.jobs.detector import Opponent
from countermark.jobs.evaluate import evaluate
from countermark.jobs.sample import sample
from countermark.jobs.train import MAX_MINUTES, Progress, train_model
from countermark.jobs.watch import features_of
from countermark.metrics import detection
from countermark.perception.own import Own
from countermark.provenance.encode import encode, roundtrip
from countermark.provenance.verify import verify
from countermark.training.run import check_output
from countermark.training.trained import load_run

DATA = "mnist5k"
MODEL = "dcgan:mnist32"
DETECTOR = "npr:small32"
NUM_RELEASED = 64
NUM_JUDGED = 1000
SURE = 0.9  # the confidence from which on a classifier is said to recognise a sample
JPEG_QUALITY = 90  # both sides of the detector's test


@dataclass(frozen=True)
class Show:
    """How the demo speaks: `say` a line, `progress` of a training, `track` a loop."""

    say: Callable[[str], None]
    progress: Progress | None = None
    track: Track = untracked


def demo(out: str | Path, *, minutes: float, show: Show) -> dict[str, Any]:
    """Run the demo in `out` and write report.html there; returns the figures that the page shows.

    minutes: length of the generator's training. Running it again goes on where it stopped.
    """
    folder = Path(out)
    if not 0 < minutes < MAX_MINUTES:
        raise UsageError(f"minutes: {minutes} is not a positive number of minutes")
    check_output(folder, "the demo")
    started = time.monotonic()
    # A step on 16 small pictures is too short to be shared: one thread shows twice as many a second as two.
    torch.set_num_threads(1)
    run, detector_run = folder / "run", folder / "detector"
    show.say(f"1/5 train {MODEL} on {DATA} for {minutes:g} minutes")
    train_model(MODEL, data=DATA, out=run, minutes=minutes, metrics=("fd", "kid"), say=show.say, progress=show.progress)
    show.say(f"2/5 release {NUM_RELEASED} samples: watermark, label, signature, registry")
    released = sample(run, out=folder / "samples", seeds=range(NUM_RELEASED), track=show.track)
    show.say("3/5 verify them, and a file with one byte changed, and one that was encoded again")
    (as_jpeg,) = sample(run, out=folder / "jpeg", seeds=[0], format="jpeg")
    marks = verify_marks([Path(entry["path"]) for entry in released], Path(as_jpeg["path"]), folder)
    show.say(f"4/5 train {DETECTOR} against unmarked samples, on real pictures that the generator never saw")
    train_model(DETECTOR, data=DATA, against=run, out=detector_run, say=show.say, progress=show.progress)
    pictures = load(open_source(DATA), load_run(run).settings.size)
    verdicts = judge(detector_run, run, pictures)
    show.say("5/5 measure the generator and write the report")
    quality = {**evaluate(run, data=DATA), **class_quality(run, pictures)}
    found = {
        "marks": marks,
        "verdicts": verdicts,
        "quality": quality,
        "seconds": round(time.monotonic() - started),
        "machine": f"{platform.machine()}, one thread, torch {torch.__version__}",
        "date": time.strftime("%Y-%m-%d"),
        "minutes": minutes,
    }
    page = report.write(folder, run, found, pictures.part("test"))
    show.say(f"done in {found['seconds']} s: open {page}")
    return found


def verify_marks(paths: list[Path], as_jpeg: Path, folder: Path) -> dict[str, Any]:
    """What `verify` says of released files, of a JPEG with a byte changed, and of a file that was encoded again."""
    entries = [verify(path) for path in paths]
    changed = bytearray(as_jpeg.read_bytes())
    changed[-200] ^= 0x01  # inside the picture's data; a JPEG still opens after that, and looks almost the same
    tampered = folder / "tampered.jpg"
    write_atomic(tampered, bytes(changed))
    copied = folder / "encoded-again.jpg"
    write_atomic(copied, encode(read_image(paths[0]), "jpeg", quality=75))
    return {
        "num": len(entries),
        "trusted": sum(entry["credentials"]["state"] == "trusted" for entry in entries),
        "watermarked": sum(entry["watermark"]["authenticated"] for entry in entries),
        "registered": sum(entry["registry"]["match"] == "exact" for entry in entries),
        "example": entries[0],
        "tampered": verify(tampered),
        "again": verify(copied),
        "by_marks": detect_files([str(paths[0]), str(copied)]),
    }


def judge(detector_run: Path, run: Path, pictures: PictureSet) -> dict[str, Any]:
    """The detector on pictures that it never saw, real and synthetic, both as JPEG of one quality.

    auc, and the share of real pictures called synthetic that was `seen`, are {value, ci95}.
    """
    detector = Detector.load(detector_run)
    sides = {"real": pictures.part("test").held().images, "synthetic": Opponent(run).synthetic(pictures, "test")}
    judgements = {side: detector.judge([_as_jpeg(samples) for samples in images]) for side, images in sides.items()}
    num = {side: len(found) for side, found in judgements.items()}
    everyone = [judgement for found in judgements.values() for judgement in found]
    is_synthetic = np.repeat([0, 1], [*num.values()])
    # A picture that the detector will not score speaks for neither side.
    scores = np.array([0.5 if judgement.p_synthetic is None else judgement.p_synthetic for judgement in everyone])
    called = np.array([judgement.verdict == "synthetic" for judgement in everyone], float)
    return {
        "auc": detection.report(scores, is_synthetic)["auc"],
        "asked": detector.calibration.false_positive_rate,
        "seen": detection.report(called, is_synthetic)["false_positive_rate"],
        "counts": {side: dict(Counter(j.verdict for j in found)) for side, found in judgements.items()},
        "num": num,
        "jpeg_quality": JPEG_QUALITY,
    }


def _as_jpeg(samples: np.ndarray) -> Image:
    return roundtrip(Image(samples), "jpeg", quality=JPEG_QUALITY)


def class_quality(run: Path, pictures: PictureSet) -> dict[str, Any]:
    """What a classifier that never saw the generator's pictures thinks of unmarked samples."""
    classifier = features_of(pictures, "own")
    assert isinstance(classifier, Own)
    probabilities = classifier.probabilities(load_run(run).measured("classify", NUM_JUDGED))
    test = pictures.part("test")
    accuracy = float((classifier.probabilities(test.images).argmax(1) == test.classes).mean())
    shares = np.bincount(probabilities.argmax(1), minlength=pictures.num_classes) / NUM_JUDGED
    return {
        "num_judged": NUM_JUDGED,
        "sure": SURE,
        "confident": float((probabilities.max(1) >= SURE).mean()),
        "class_shares": shares.tolist(),
        "classifier_accuracy": accuracy,
    }
