"""Whether bfloat16 costs quality: the same network after the same number of images in float32 and in bfloat16.

Both see the same pictures in the same order from the same weights. Equal means that each kernel distance lies in the
other's interval.

python -m benchmarks.precision [--models r3gan biggan] [--images 2000] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import torch

from benchmarks import record
from benchmarks.speed import PRECISIONS
from benchmarks.zoo_quality import FEATURES, NUM_FAKE, SIDE, Judge, chosen, train_one
from countermark.data.image import load
from countermark.data.sources import open_source
from countermark.models import find
from countermark.training.loop import Length

DATA = "faces64"
HEADER = ["model", "precision", "images", "seconds", f"FD-{FEATURES}", f"KID-{FEATURES}", "density", "coverage"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=["r3gan", "biggan"])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "precision", help="where runs go")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pictures = load(open_source(DATA), SIDE)
    rows, judge = [], Judge(pictures)
    for spec in map(find, options.models):
        preset, settings = chosen(spec, pictures)
        for name, mode in PRECISIONS.items():
            changed = dataclasses.replace(settings, **{"bf16": False, **mode})
            start = time.process_time()
            folder = options.out / f"{spec.name}-{name}"
            trained = train_one(spec, changed, DATA, pictures, Length(nimg=options.images), folder)
            row = [f"{spec.name}:{preset}", name, trained.nimg, round(time.process_time() - start)]
            rows.append([*row, *judge(trained.measured("evaluate", NUM_FAKE))])
            print(record.markdown(HEADER, rows[-1:]).splitlines()[-1], flush=True)
    command = f"python -m benchmarks.precision --models {' '.join(options.models)} --images {options.images}"
    record.write("precision", command, HEADER, rows)


if __name__ == "__main__":
    main()
