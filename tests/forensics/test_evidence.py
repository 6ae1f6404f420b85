from pathlib import Path

import numpy as np
import pytest

from countermark.core.media import Image, read_image
from countermark.forensics.detector import Detector, calibrate
from countermark.forensics.evidence import detect
from countermark.forensics.heatmap import draw
from countermark.provenance.encode import encode
from tests.forensics.toy import SETTINGS, Brightness, pictures


@pytest.fixture(scope="module")
def detector() -> Detector:
    network = Brightness()
    sides = pictures(100, brightness=90, seed=1), pictures(100, brightness=165, seed=2)
    return Detector(network, calibrate(network, SETTINGS, *sides), "toy")


@pytest.fixture
def bright(tmp_path: Path) -> Path:
    path = tmp_path / "bright.png"
    path.write_bytes(encode(Image(pictures(1, brightness=170, seed=3)[0]), "png"))
    return path


def test_without_a_detector_an_unmarked_file_is_unknown_and_the_reason_says_how_to_get_one(bright: Path) -> None:
    entry = detect(bright)
    assert entry["path"] == str(bright)
    assert (entry["verdict"], entry["decided_by"], entry["p_synthetic"]) == ("unknown", "none", None)
    assert entry["detectors"] == []
    assert "countermark train npr" in entry["reasons"][0]
    assert entry["credentials"]["state"] == "absent"


def test_a_detector_decides_on_an_unmarked_file(bright: Path, detector: Detector) -> None:
    entry = detect(bright, [detector])
    assert (entry["verdict"], entry["decided_by"]) == ("synthetic", "detector")
    assert entry["p_synthetic"] > 0.9
    assert entry["detectors"] == [{"name": "toy", "p_synthetic": entry["p_synthetic"]}]


def test_a_picture_outside_the_domain_is_unknown(tmp_path: Path, detector: Detector) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(Image(photo), "jpeg"))
    entry = detect(path, [detector])
    assert (entry["verdict"], entry["p_synthetic"]) == ("unknown", None)


@pytest.mark.parametrize("content", [None, b"", b"not a picture", b"\x89PNG\r\n\x1a\nbroken"])
def test_a_file_that_cannot_be_read_gets_its_error(tmp_path: Path, detector: Detector, content: bytes | None) -> None:
    path = tmp_path / "bad.png"
    if content is not None:
        path.write_bytes(content)
    for detectors in ([], [detector]):
        entry = detect(path, detectors)
        assert set(entry) == {"path", "error"}
        assert entry["path"] == str(path)


def test_heatmaps_are_written_for_pictures_that_were_looked_at(
    tmp_path: Path, bright: Path, detector: Detector
) -> None:
    detect(bright, [detector], heatmap=tmp_path / "maps")
    (path,) = (tmp_path / "maps").iterdir()
    assert path.name == "bright.toy.png"
    drawn = read_image(path).samples
    assert drawn.shape == (16, 16, 3)
    assert (drawn[..., 0] > drawn[..., 2]).mean() > 0.9


def test_heatmap_colours_follow_the_sign() -> None:
    drawn = draw(Image(np.full((1, 3, 1), 100, np.uint8)), np.array([[1.0, 0.0, -1.0]])).samples[0].astype(int)
    assert drawn[0, 0] > drawn[0, 2]
    assert drawn[1].tolist() == [100, 100, 100]
    assert drawn[2, 2] > drawn[2, 0]
