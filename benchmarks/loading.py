"""Does loading keep a trainer fed? Images a second of loading, of training, and of training on what is being loaded.

Pictures are crops of two photographs, packed as people have them: a folder and a zip of PNG at the size to train at,
tar shards of the same, and a folder and shards of JPEG at 256 px that are resized to 64 on the way. Streamed sets may
keep only a tenth of their pictures, so that nearly every one is decoded when it is asked for. The files lie in the
system's cache, as those of a set that is trained on for long do.

python -m benchmarks.loading [--num 1000] [--seconds 3] [--threads 2]
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_sample_images

from benchmarks import record
from countermark.core.media import Image
from countermark.data.image import PictureSet, Shuffled, load
from countermark.data.sources import open_source
from countermark.jobs import pack
from countermark.models import find
from countermark.provenance.encode import encode
from countermark.training.trainer import Trainer

MODELS = ("dcgan:dcgan64", "stylegan2:size64", "r3gan:size64")
SIDE, LARGE, BATCH = 64, 256, 16
ROUNDS = 2  # of each training, from memory and streamed in turn, of which the faster counts
KEPT = 0.1  # of a streamed set


def make_sources(folder: Path, num: int) -> dict[str, str]:
    """What to load, by what it is."""
    photographs, rng = load_sample_images().images, np.random.default_rng(0)
    for form, side in (("png", SIDE), ("jpeg", LARGE)):
        (folder / form).mkdir()
        for i in range(num):
            photograph = photographs[i % 2]
            top, left = (int(rng.integers(0, length - side)) for length in photograph.shape[:2])
            crop = Image(np.ascontiguousarray(photograph[top : top + side, left : left + side]))
            (folder / form / f"{i:06d}.{form}").write_bytes(encode(crop, form))
    packs = {"png.zip": "png", "png/{0..3}.tar": "png", "jpeg/{0..3}.tar": "jpeg"}
    for name, form in packs.items():
        source = open_source(folder / form)
        pack.pack(source, range(num), pack.places(folder / "packed" / name, "", None))
    return {
        f"folder of PNG, {SIDE} px": f"{folder}/png",
        f"zip of PNG, {SIDE} px": f"{folder}/packed/png.zip",
        f"shards of PNG, {SIDE} px": f"{folder}/packed/png/{{0..3}}.tar",
        f"folder of JPEG, {LARGE} to {SIDE} px": f"{folder}/jpeg",
        f"shards of JPEG, {LARGE} to {SIDE} px": f"{folder}/packed/jpeg/{{0..3}}.tar",
    }


def loaded(name: str, threads: int | None) -> PictureSet:
    """The set in memory, or streamed by `threads`."""
    source = open_source(name)
    if threads is None:
        return load(source, SIDE)
    return load(source, SIDE, memory_bytes=int(2 * KEPT * len(source) * SIDE * SIDE * 3), threads=threads)


def seconds_of(work: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def loading_rate(pictures: PictureSet, seconds: float) -> float:
    """Images a second of batch after batch, with nothing else to do."""
    stream, num = Shuffled(pictures, 0), 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        stream.at(num, BATCH)
        num += BATCH
    return num / elapsed


def training_rate(model: str, pictures: PictureSet, seconds: float) -> float:
    """Images a second of training on `pictures`."""
    name, _, preset = model.partition(":")
    spec = find(name)
    settings = dataclasses.replace(spec.presets[preset], channels=3, num_classes=0, batch=BATCH)
    trainer = Trainer(spec, settings, Shuffled(pictures, 0), 0)
    trainer.advance(None)
    num, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        trainer.advance(None)
        num += settings.batch
    return num / elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=1000, help="pictures a source (default: 1000)")
    parser.add_argument("--seconds", type=float, default=3, help="for each figure (default: 3)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the training (default: all cores)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["COUNTERMARK_HOME"] = f"{folder}/home"  # an index of its own
        sources = make_sources(Path(folder), options.num)
        starts = {what: [seconds_of(loaded, name, 1) for _ in range(2)] for what, name in sources.items()}
        held, streamed = loaded(next(iter(sources.values())), None), loaded(list(sources.values())[-1], 1)
        fastest = 0.0
        for model in MODELS:
            rounds = [[training_rate(model, x, options.seconds) for x in (held, streamed)] for _ in range(ROUNDS)]
            plain, fed = np.max(rounds, axis=0).tolist()
            fastest = max(fastest, plain)
            rows.append([f"training {model}, set in memory", plain, 1.0, "", ""])
            rows.append([f"training {model}, JPEG shards streamed by 1 thread", fed, fed / plain, "", ""])
        rate = loading_rate(held, options.seconds)
        rows.append(["loading, set in memory", rate, rate / fastest, "", ""])
        for what, name in sources.items():
            rate = loading_rate(loaded(name, 1), options.seconds)
            rows.append([f"loading, {what}, streamed by 1 thread", rate, rate / fastest, *starts[what]])
    header = ["what", "images/s", "times training from memory", "first start, s", "later starts, s"]
    command = f"python -m benchmarks.loading --num {options.num} --seconds {options.seconds:g}"
    record.write("loading", command, header, rows, num=options.num, threads=options.threads)


if __name__ == "__main__":
    main()
