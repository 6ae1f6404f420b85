"""Folders of made pictures: what of them is compared, and what a detector trains against."""

from pathlib import Path

import numpy as np
import pytest

from countermark.core.errors import UsageError
from countermark.core.media import Image
from countermark.data.image import PictureSet, load
from countermark.data.sources import open_source
from countermark.jobs.detector import Opponent
from countermark.jobs.evaluate import open_made
from countermark.provenance.encode import encode

SIZE, NUM = 16, 60


def samples(num: int = NUM, size: int = SIZE, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num, size, size, channels), dtype=np.uint8)


def folder_of(folder: Path, images: np.ndarray, factor: int = 1) -> Path:
    folder.mkdir(parents=True)
    for seed, picture in enumerate(images):
        shown = picture.repeat(factor, axis=0).repeat(factor, axis=1)
        (folder / f"seed{seed:04d}.png").write_bytes(encode(Image(shown), "png"))
    return folder


def reals(channels: int = 1, size: int = SIZE) -> PictureSet:
    return PictureSet("reals", samples(4, size, channels), None, [], [f"{i:064x}" for i in range(4)])


def as_set(images: np.ndarray) -> set[bytes]:
    return {picture.tobytes() for picture in images}


@pytest.mark.parametrize("factor", [1, 2, 8])
def test_enlarged_pictures_are_trained_against_as_they_were_made(tmp_path: Path, factor: int) -> None:
    made = Opponent(folder_of(tmp_path / "made", samples(), factor)).synthetic(reals(), "detector")
    assert made.shape[1:] == (SIZE, SIZE, 1)
    assert len(made) > 0
    assert as_set(made) <= as_set(samples())


@pytest.mark.parametrize("size", [12, 24, 32])
def test_another_size_is_refused_and_both_sizes_are_named(tmp_path: Path, size: int) -> None:
    folder = folder_of(tmp_path / "made", samples(size=size))
    with pytest.raises(UsageError, match=rf"{size} x {size} px, the real ones are 16 x 16 px; give both") as caught:
        Opponent(folder).synthetic(reals(), "detector")
    assert "\n" not in str(caught.value)


def test_grey_and_colour(tmp_path: Path) -> None:
    grey = folder_of(tmp_path / "grey", samples())
    assert Opponent(grey).synthetic(reals(channels=3), "detector").shape[3] == 3
    equal = folder_of(tmp_path / "equal", samples().repeat(3, axis=3))
    assert as_set(Opponent(equal).synthetic(reals(), "detector")) <= as_set(samples())
    with pytest.raises(UsageError, match="colour"):
        Opponent(folder_of(tmp_path / "colour", samples(channels=3))).synthetic(reals(), "detector")


def test_the_overview_beside_samples_is_left_out_and_no_other_grid(tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder_of(tmp_path / name, samples(3), 2)
    overview = encode(Image(samples(1, 4 * SIZE)[0]), "png")
    (tmp_path / "one" / "grid.png").write_bytes(overview)
    (tmp_path / "three").mkdir()
    (tmp_path / "three" / "grid.png").write_bytes(overview)
    source = open_made(tmp_path, "made")
    assert sorted(path.relative_to(tmp_path).as_posix() for path in source.paths if path.name == "grid.png") == [
        "three/grid.png"
    ]
    assert len(source) == len(source.classes) == 7
    assert len(load(source, SIZE).images) == 7
    assert len(open_source(tmp_path)) == 8


def test_detectors_train_against_a_released_folder_with_its_overview(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "made", samples(), 2)
    (folder / "grid.png").write_bytes(encode(Image(samples(1, 100)[0]), "png"))
    assert len(Opponent(folder).synthetic(reals(), "detector")) > 0
