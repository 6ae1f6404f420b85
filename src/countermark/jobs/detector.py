"""What training a detector needs beside the loop: synthetic pictures to train against, and the calibration after."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from countermark.core.errors import UsageError
from countermark.core.media import Image
from countermark.data.image import PictureSet, load
from countermark.data.sources import Source
from countermark.forensics.calibration import Calibration
from countermark.forensics.detector import calibrate as calibrate_network
from countermark.forensics.native import as_grey, cell_means, repetition_factor
from countermark.forensics.pairs import FormatMatchedPairs
from countermark.jobs.evaluate import open_made
from countermark.training.run import is_run
from countermark.training.shipped import run_folder
from countermark.training.trained import load_run

FAKES_PER_REAL = {"detector": 2, "calibration": 2, "test": 1}


class Opponent:
    """What a detector trains against, named by `place`: a run, which is sampled, or a folder of synthetic pictures.

    model: FILE.py:SPEC for a run of a model of the user's own. Raises UsageError and CountermarkError as `load_run`.
    """

    def __init__(self, place: str | Path, model: str | None = None) -> None:
        self.place = place
        run = run_folder(place)
        self.trained = load_run(run, model) if is_run(run) else None

    def native_size(self, data_size: int) -> int:
        """The size to train at: the generator's, or the pictures' own, for a resize wipes out what a detector reads."""
        return self.trained.settings.size if self.trained else data_size

    def synthetic(self, pictures: PictureSet, part: str) -> np.ndarray:
        """Synthetic pictures uint8 [N,H,W,C], in memory, of the size and channels of `pictures`.

        From a run they are sampled, unmarked, with seeds of their own for every part; from a folder they are split like
        any set, at the size at which they were made. Where the set is streamed, no more than fit into half the cap.
        Raises UsageError when they are of another size or colour.
        """
        if self.trained is None:
            return _from_folder(self.place, pictures).part(part).held().images
        settings = self.trained.settings
        made, wanted = (settings.size, settings.channels), (pictures.size, pictures.channels)
        if made != wanted:
            raise UsageError(
                f"against: {self.place} makes pictures of {made[0]} px and {made[1]} channels, the detector is for "
                f"{wanted[0]} px and {wanted[1]}; choose another preset"
            )
        return self.trained.measured(part, pictures.fitting(FAKES_PER_REAL[part] * len(pictures.part(part).units)))


class _Native:
    """A source whose pictures come as they were made: repeated pixels undone, and as grey or colour as `channels` says
    where that loses nothing.

    others: the (width, height) of pictures that are not of `size` for all that.
    """

    def __init__(self, source: Source, size: int, channels: int) -> None:
        self.name, self.classes, self.class_names = source.name, source.classes, source.class_names
        self.source, self.side, self.channels = source, size, channels
        self.others: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self.source)

    def label(self, index: int) -> str:
        return self.source.label(index)

    def size(self, index: int) -> tuple[int, int]:
        return self.source.size(index)

    def read(self, index: int) -> tuple[Image, str]:
        image, unit = self.source.read(index)
        samples = image.samples
        if samples.shape[2] < self.channels:
            samples = samples.repeat(self.channels, axis=2)
        if samples.shape[2] > self.channels and (grey := as_grey(samples)) is not None:
            samples = grey
        if factor := repetition_factor(samples, self.side):
            samples = cell_means(samples, factor)
        if samples.shape[:2] != (self.side, self.side):
            self.others.append((image.width, image.height))
        return Image(samples), unit


def _from_folder(against: str | Path, pictures: PictureSet) -> PictureSet:
    """The pictures of a folder or zip. A resize would leave its filter for the detector to learn: UsageError."""
    source = _Native(open_made(against, "against"), pictures.size, pictures.channels)
    made = load(source, pictures.size)
    if source.others:
        width, height = min(source.others)
        raise UsageError(
            f"against: {against} holds pictures of {width} x {height} px, the real ones are {pictures.size} x "
            f"{pictures.size} px; give both in one size as they were made, or the generator's run"
        )
    if shared := len(set(made.units) & set(pictures.units)):
        raise UsageError(f"against: {shared} pictures of {against} are among the real ones; take them out of one side")
    if made.channels > pictures.channels:
        raise UsageError(f"against: {against} holds colour pictures, the real ones are grey; give both alike")
    return made


def batches(opponent: Opponent, pictures: PictureSet, seed: int) -> FormatMatchedPairs:
    """The detector part of the real pictures against synthetic ones, both through the same codecs."""
    return FormatMatchedPairs(pictures.part("detector").images, opponent.synthetic(pictures, "detector"), seed=seed)


def calibrate(run: Path, opponent: Opponent, pictures: PictureSet, model: str | None = None) -> None:
    """Calibrate the newest weights of a detector's run on the calibration part, and keep that in the run."""
    trained = load_run(run, model)
    reals, fakes = pictures.part("calibration").held().images, opponent.synthetic(pictures, "calibration")
    Calibration.save(calibrate_network(trained.networks["F"], trained.settings, reals, fakes), run)
