"""What is looked at while a generator trains: a released grid of samples, and figures where they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from countermark.core.errors import CountermarkError
from countermark.core.media import Image
from countermark.core.pixels import to_uint8
from countermark.core.spec import Settings, Spec
from countermark.data.image import PictureSet
from countermark.metrics.distribution import compare
from countermark.perception.features import Features, load_features
from countermark.provenance.release import Origin, release
from countermark.training.trained import Trained
from countermark.training.trainer import Trainer, frozen_copy

GRID_SEEDS = tuple(range(64))
NUM_FAKE = 500


class Watch:
    """Called by the loop at every mark: releases samples/markNN-<images>.png and returns figures for metrics.jsonl."""

    def __init__(
        self,
        spec: Spec,
        settings: Settings,
        folder: Path,
        config: dict[str, Any],
        pictures: PictureSet,
        metrics: Sequence[str],
    ) -> None:
        self.spec, self.settings, self.folder, self.metrics = spec, settings, folder, tuple(metrics)
        self.config = config
        self.features: Features | None = None
        if metrics:
            self.features = features_of(pictures, None)
            self.reals = self.features(pictures.part("test").images)

    def __call__(self, trainer: Trainer, mark: int) -> dict[str, float]:
        averages = {name: frozen_copy(network).cpu() for name, network in trainer.averages.items()}
        trained = Trained(self.spec, self.settings, self.config, averages, trainer.nimg)
        seeds = GRID_SEEDS[:: 4 if self.settings.size > 64 else 1]
        path = self.folder / "samples" / f"mark{mark:02d}-{trainer.nimg:09d}.png"
        # What an untrained or broken generator makes can be too noisy for a watermark: no picture then, but no end of
        # the training either. A full disk is reported by the state that follows.
        with suppress(CountermarkError):
            release_grid(trained, seeds, grid_classes(trained, len(seeds)), path)
        if self.features is None:
            return {}
        fakes = self.features(trained.measured("watch", NUM_FAKE))
        found = compare(self.reals, fakes, self.metrics, self.features.name, self.features.resize)
        return {f"metrics/{name}": figure["value"] for name, figure in found.items() if isinstance(figure, dict)}


def features_of(pictures: PictureSet, name: str | None) -> Features:
    """The features called `name`, or the set's own when it has classes, else efflite0; `own` learns from the part that
    detectors train on, so it has seen neither the generator's pictures nor those that it is asked about.

    Of a streamed set it learns from as many as `PictureSet.held` takes."""
    name = name or ("own" if pictures.num_classes > 1 else "efflite0")
    if name != "own":
        return load_features(name)
    part = pictures.part("detector").held()
    return load_features(name, images=part.images, labels=part.classes)


def grid_classes(trained: Trained, num: int) -> list[int] | None:
    """The classes in turn, so that a grid shows each; None for a model without classes."""
    num_classes = trained.settings.num_classes
    return [i % num_classes for i in range(num)] if num_classes else None


def release_grid(trained: Trained, seeds: Sequence[int], classes: Sequence[int] | None, path: Path) -> None:
    """Release one picture that shows a sample for every seed, row by row."""
    images = to_uint8(trained.sample(seeds, classes))
    origin = Origin("made", trained.spec.name, run=trained.run_id, seed=tuple(seeds))
    release(Image(tiled(images)), path, origin=origin)


def tiled(images: np.ndarray, columns: int | None = None) -> np.ndarray:
    """uint8 [N,H,W,C] as one picture, row by row; what is left over at the end stays black.

    columns: None for about as many as rows.
    """
    num, height, width, channels = images.shape
    columns = columns or int(np.ceil(num**0.5))
    rows = -(-num // columns)
    canvas = np.zeros((rows * columns, height, width, channels), np.uint8)
    canvas[:num] = images
    cells = canvas.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    return cells.reshape(rows * height, columns * width, channels)
