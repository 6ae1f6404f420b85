"""What training a detector needs beside the loop: synthetic pictures to train against, and the calibration after."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from countermark.core.errors import UsageError
from countermark.data.image import PictureSet, load
from countermark.data.sources import open_source
from countermark.forensics.calibration import Calibration
from countermark.forensics.detector import calibrate as calibrate_network
from countermark.forensics.pairs import FormatMatchedPairs
from countermark.training.loop import to_uint8
from countermark.training.trained import load_run

# Seeds of a generator's pictures, apart for every use, and far from those that people sample.
FIRST_SEED = {"detector": 10**6, "calibration": 2 * 10**6, "test": 3 * 10**6}
FAKES_PER_REAL = {"detector": 2, "calibration": 2, "test": 1}


def native_size(against: str | Path, data_size: int) -> int:
    """The size to train at: the generator's, or the pictures' own, for a resize wipes out what a detector reads."""
    if (Path(against) / "config.json").is_file():
        return load_run(Path(against)).settings.size
    return data_size


def synthetic(against: str | Path, pictures: PictureSet, part: str) -> np.ndarray:
    """Unmarked synthetic pictures uint8 [N,H,W,C], in memory, of the size and channels of `pictures`.

    From a run they are sampled with seeds of their own for every part; from a folder they are split like any set.
    Raises UsageError when the generator's pictures are of another size or colour.
    """
    if not (Path(against) / "config.json").is_file():
        return load(open_source(against), pictures.size).part(part).images
    trained = load_run(Path(against))
    made, wanted = (trained.settings.size, trained.settings.channels), (pictures.size, pictures.channels)
    if made != wanted:
        raise UsageError(
            f"against: {against} makes pictures of {made[0]} px and {made[1]} channels, the detector is for "
            f"{wanted[0]} px and {wanted[1]}; choose another preset"
        )
    num = FAKES_PER_REAL[part] * len(pictures.part(part).images)
    return to_uint8(trained.sample(range(FIRST_SEED[part], FIRST_SEED[part] + num)))


def batches(against: str | Path, pictures: PictureSet, seed: int) -> FormatMatchedPairs:
    """The detector part of the real pictures against synthetic ones, both through the same codecs."""
    return FormatMatchedPairs(pictures.part("detector").images, synthetic(against, pictures, "detector"), seed=seed)


def calibrate(run: Path, against: str | Path, pictures: PictureSet) -> None:
    """Calibrate the newest weights of a detector's run on the calibration part, and keep that in the run."""
    trained = load_run(run)
    reals, fakes = pictures.part("calibration").images, synthetic(against, pictures, "calibration")
    Calibration.save(calibrate_network(trained.networks["F"], trained.settings, reals, fakes), run)
