"""Quality at a budget: every network after the same minutes of one core, on one set, with a grid of its samples.

The budget is processor time of one thread, so that what else the machine does changes nothing; a faster network shows
more images in it, which the table says. Distances are to the set's test part, which no generator sees. "cut" is the
distance between the set's own detector and test parts: what a perfect generator would reach.

python -m benchmarks.zoo_quality [--data faces64] [--minutes 2] [--models NAME ...] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import tempfile
import time
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from benchmarks import record
from countermark.core.spec import Settings, Spec
from countermark.data.image import PictureSet, Shuffled, load
from countermark.data.sources import open_source
from countermark.jobs.watch import features_of, grid_classes, release_grid
from countermark.metrics.distribution import compare
from countermark.models import SPECS
from countermark.training.loop import Length, train
from countermark.training.run import document, settings_to_json
from countermark.training.trained import Trained, load_run
from countermark.training.trainer import Trainer

SIDE, FEATURES, NUM_FAKE, NUM_GRID = 32, "efflite0", 1000, 64
GRIDS = Path(__file__).parents[1] / "docs" / "zoo"
# The models without a preset for colour at 32 px take the nearest one's shape.
SHAPES = {"gan": {"size": SIDE}, "dcgan": {"size": SIDE}, "wgan": {"size": SIDE}}
HEADER = ["model", "images", "images/s", f"FD-{FEATURES}", f"KID-{FEATURES}", "density", "coverage"]


class ProcessorTime(Length):
    """Until this process has computed for `seconds` since it was first asked, which is when training starts."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds=seconds)

    @cached_property
    def start(self) -> float:
        return time.process_time()

    def fraction(self, nimg: int, elapsed_s: float) -> float:
        return (time.process_time() - self.start) / self.seconds  # type: ignore[operator]


def chosen(spec: Spec, pictures: PictureSet) -> tuple[str, Settings]:
    """The preset of a laptop's size where there is one."""
    light = f"size{SIDE}"
    preset = light if light in spec.presets else spec.fitting_preset(SIDE, pictures.channels)
    shape = {"channels": pictures.channels, "num_classes": pictures.num_classes, **SHAPES.get(spec.name, {})}
    return preset, dataclasses.replace(spec.presets[preset], **shape)


def train_one(spec: Spec, settings: Settings, data: str, pictures: PictureSet, length: Length, folder: Path) -> Trained:
    """A run of `settings` in `folder`, in place of what was there."""
    trainer = Trainer(spec, settings, Shuffled(pictures.part("generator"), 0), 0)
    words = {"model": spec.name, "settings": settings_to_json(settings), "seed": 0}
    config = document({**words, "data": {"name": data, "fingerprint": pictures.fingerprint}})
    shutil.rmtree(folder, ignore_errors=True)
    train(trainer, folder, length, config=config)
    return load_run(folder)


class Judge:
    """Distances and coverage, each with its interval, of pictures to a set's test part."""

    def __init__(self, pictures: PictureSet) -> None:
        self.features = features_of(pictures, FEATURES)
        self.real = self.features(pictures.part("test").images)

    def __call__(self, images: np.ndarray) -> list[str]:
        found = self._compared(images, ("fd", "kid", "dc"))
        return [record.with_interval(found[name]) for name in ("fd", "kid", "density", "coverage")]

    def values(self, images: np.ndarray) -> dict[str, float]:
        """FD and KID without their intervals."""
        found = self._compared(images, ("fd", "kid"))
        return {name: found[name]["value"] for name in ("fd", "kid")}

    def _compared(self, images: np.ndarray, metrics: tuple[str, ...]) -> dict:
        return compare(self.real, self.features(images), metrics, self.features.name, self.features.resize)


def measure(spec: Spec, data: str, pictures: PictureSet, judge: Judge, minutes: float, folder: Path) -> list[object]:
    """One row; leaves the run in `folder` and a grid of its samples in docs/zoo."""
    preset, settings = chosen(spec, pictures)
    trained = train_one(spec, settings, data, pictures, ProcessorTime(60 * minutes), folder)
    release_grid(trained, range(NUM_GRID), grid_classes(trained, NUM_GRID), GRIDS / f"{data}-{spec.name}.png")
    row: list[object] = [f"{spec.name}:{preset}", trained.nimg, trained.nimg / (60 * minutes)]
    return row + judge(trained.measured("evaluate", NUM_FAKE))


def rows_of(name: str, command: str) -> dict[str, list[object]]:
    """The rows by model that the same command has left on such a machine: --models takes some of them anew."""
    path = record.RESULTS / f"{name}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    same = known.get("command") == command and {**known["machine"], "date": ""} == {**record.machine(), "date": ""}
    return {row[0].partition(":")[0]: row for row in known["rows"]} if same else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="faces64")
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--models", nargs="*", default=[])
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "zoo", help="where the runs go")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pictures = load(open_source(options.data), SIDE)
    judge = Judge(pictures)
    command = f"python -m benchmarks.zoo_quality --data {options.data} --minutes {options.minutes:g}"
    name = f"zoo_quality_{options.data}"
    earlier = rows_of(name, command)
    # What pictures of the same set that are not the test's reach.
    rows: list[list[object]] = [["cut: real pictures", "", "", *judge(pictures.part("detector").images[:NUM_FAKE])]]
    for spec in SPECS:
        if spec.kind == "image" and (not options.models or spec.name in options.models):
            rows.append(measure(spec, options.data, pictures, judge, options.minutes, options.out / spec.name))
            print(record.markdown(HEADER, rows[-1:]).splitlines()[-1], flush=True)
        elif spec.name in earlier:
            rows.append(earlier[spec.name])
    record.write(name, command, HEADER, rows)


if __name__ == "__main__":
    main()
