from pathlib import Path

import numpy as np
import pytest

from countermark.core.errors import CountermarkError
from countermark.core.files import sha256_hex
from countermark.core.media import Image, read_image
from countermark.core.video import frames, open_clip
from countermark.forensics.detector import Detector, calibrate
from countermark.forensics.evidence import detect
from countermark.forensics.heatmap import draw
from countermark.provenance.encode import encode, encode_video
from countermark.provenance.release import Origin, release, release_video
from tests.clips import clip
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
    weights = detector.calibration.network_sha256
    assert path.name == f"bright.{sha256_hex(bright.read_bytes())[:8]}.toy.{weights[:8]}.png"
    drawn = read_image(path).samples
    assert drawn.shape == (16, 16, 3)
    assert (drawn[..., 0] > drawn[..., 2]).mean() > 0.9


def test_heatmap_colours_follow_the_sign() -> None:
    drawn = draw(Image(np.full((1, 3, 1), 100, np.uint8)), np.array([[1.0, 0.0, -1.0]])).samples[0].astype(int)
    assert drawn[0, 0] > drawn[0, 2]
    assert drawn[1].tolist() == [100, 100, 100]
    assert drawn[2, 2] > drawn[2, 0]


def test_pictures_and_detectors_of_one_name_get_a_heatmap_each(tmp_path: Path, detector: Detector) -> None:
    other = Brightness()
    other.head.weight.data *= 1.01
    sides = pictures(50, brightness=90, seed=1), pictures(50, brightness=165, seed=2)
    namesake = Detector(other, calibrate(other, SETTINGS, *sides), "toy")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "x.png"
        path.write_bytes(encode(Image(pictures(1, brightness=170, seed=ord(folder))[0]), "png"))
        detect(path, [detector, namesake], heatmap=tmp_path / "maps")
    assert len(list((tmp_path / "maps").iterdir())) == 4


@pytest.mark.parametrize("stem", ["x" * 250, "\u00e9" * 120, "\udcff\udcfe" * 60])
def test_an_overlong_name_is_shortened(tmp_path: Path, bright: Path, detector: Detector, stem: str) -> None:
    path = bright.rename(tmp_path / f"{stem}.png")
    named = Detector(detector.network, detector.calibration, "npr@" + "r" * 250)
    assert "error" not in detect(path, [named], heatmap=tmp_path / "maps")
    (drawn,) = (tmp_path / "maps").iterdir()
    assert len(drawn.name.encode()) <= 143


def test_a_heatmap_that_fails_is_an_error_of_its_file_and_a_full_folder_is_one_of_all(
    tmp_path: Path, bright: Path, detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> bytes:
        raise CountermarkError("made to fail")

    with monkeypatch.context() as patched:
        patched.setattr("countermark.forensics.heatmap.encode", fail)
        found = detect(bright, [detector], heatmap=tmp_path / "maps")
        assert found == {"path": str(bright), "error": "made to fail"}
    monkeypatch.setattr("countermark.forensics.evidence.write_atomic", fail)
    with pytest.raises(CountermarkError, match="made to fail"):
        detect(bright, [detector], heatmap=tmp_path / "maps")


def waves(side: int) -> Image:
    y, x = np.mgrid[0:side, 0:side] / side
    noise = np.random.default_rng(0).normal(0, 3, (side, side, 3))
    return Image((128 + 60 * np.sin(9 * x + 5 * y)[..., None] + noise).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("side", [40, 160])
def test_what_was_only_protected_is_never_called_synthetic(tmp_path: Path, side: int) -> None:
    origin = Origin("protected", "camera", parent=encode(waves(side), "png"))
    entry = detect(release(waves(side), tmp_path / "a.png", origin=origin, native_size=True).path)
    assert entry["credentials"]["state"] == "trusted"
    assert entry["registry"]["match"] == "exact"
    assert entry["watermark"]["present"] == (side >= 128)
    assert (entry["verdict"], entry["decided_by"], entry["generator"]) == ("unknown", "none", None)
    assert any(reason.startswith("claim: protected by") for reason in entry["reasons"])


@pytest.mark.parametrize("kind", ["made", "protected"])
def test_a_released_sample_that_was_encoded_again_names_its_generator(tmp_path: Path, kind: str) -> None:
    parent = encode(waves(160), "png") if kind == "protected" else None
    first = release(waves(256), tmp_path / "a.png", origin=Origin(kind, "dcgan:tiny", run="run-1", parent=parent))
    again = tmp_path / "again.jpg"
    again.write_bytes(encode(read_image(first.path), "jpeg", quality=85))
    entry = detect(again)
    expected = ("synthetic", "watermark", "dcgan:tiny@run-1") if kind == "made" else ("unknown", "none", None)
    assert (entry["verdict"], entry["decided_by"], entry["generator"]) == expected
    assert (entry["registry"]["match"], entry["registry"]["id"]) == ("near", first.id)


def test_a_clip_is_judged_by_its_marks_alone(tmp_path: Path, detector: Detector) -> None:
    released = release_video(clip(4), 25, tmp_path / "a.mp4", origin=Origin("made", "dcgan", run="r1", seed=(1, 2)))
    entry = detect(released.path, [detector], tmp_path / "maps")
    assert (entry["media"], entry["verdict"], entry["decided_by"]) == ("video", "synthetic", "credentials")
    again = tmp_path / "again.mp4"
    again.write_bytes(encode_video(frames(open_clip(released.data)), 25, crf=18))
    entry = detect(again, [detector])
    assert (entry["credentials"]["state"], entry["decided_by"], entry["generator"]) == (
        "absent",
        "watermark",
        "dcgan@r1",
    )
    (tmp_path / "plain.mp4").write_bytes(encode_video(clip(4), 25))
    entry = detect(tmp_path / "plain.mp4", [detector])
    assert (entry["verdict"], entry["decided_by"], entry["detectors"]) == ("unknown", "none", [])
    assert not (tmp_path / "maps").exists()
