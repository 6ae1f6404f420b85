"""Packs: the same pictures and classes in another place, whole or not there."""

import json
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.media import Image
from countermark.data.image import load
from countermark.data.sources import open_source
from countermark.jobs import pack
from countermark.jobs.data import inspect_data
from countermark.provenance.encode import encode

NUM = 25


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """PNG, JPEG and WebP in two classes, one with a name that lies."""
    rng = np.random.default_rng(0)
    for i in range(NUM):
        format = ("png", "jpeg", "webp")[i % 3]
        path = tmp_path / "set" / ("cat", "dog")[i % 2] / f"{i:02d}.{'png' if i == 1 else format}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(Image(rng.integers(0, 256, (12, 10, 3), np.uint8)), format))
    return tmp_path / "set"


PACKS = ("p.zip", "p.tar", "p/{00..04}.tar")


@pytest.mark.parametrize("out", PACKS)
def test_what_is_packed_is_the_same_set(out: str, folder: Path, tmp_path: Path) -> None:
    packed = inspect_data(folder, out=tmp_path / out)["packed"]
    ours, theirs = open_source(tmp_path / out), open_source(folder)
    assert load(ours, 8).fingerprint == load(theirs, 8).fingerprint
    np.testing.assert_array_equal(load(ours, 8).images, load(theirs, 8).images)
    assert packed["pictures"] == NUM
    assert packed["bytes"] == sum(Path(path).stat().st_size for path in packed["files"])
    assert ours.label(0).endswith((".png", ".jpg"))
    assert ours.label(1)[-4:] == theirs.label(1)[-4:] or theirs.label(1).endswith(".jpeg")


@pytest.mark.parametrize("out", PACKS)
def test_equal_sets_give_equal_bytes(out: str, folder: Path, tmp_path: Path) -> None:
    first = inspect_data(folder, out=tmp_path / "a" / out)["packed"]["files"]
    second = inspect_data(folder, out=tmp_path / "b" / out)["packed"]["files"]
    assert [Path(path).read_bytes() for path in first] == [Path(path).read_bytes() for path in second]


def test_pictures_of_one_size_are_cropped_and_resized(folder: Path, tmp_path: Path) -> None:
    inspect_data(folder, out=tmp_path / "p.zip", size=6)
    ours = open_source(tmp_path / "p.zip")
    assert {ours.size(i) for i in range(NUM)} == {(6, 6)}
    np.testing.assert_array_equal(load(ours, 6).images, load(open_source(folder), 6).images)


def test_a_zip_is_laid_out_as_stylegan_s(folder: Path, tmp_path: Path) -> None:
    inspect_data(folder, out=tmp_path / "p.zip")
    with zipfile.ZipFile(tmp_path / "p.zip") as archive:
        labels = json.loads(archive.read("dataset.json"))["labels"]
        names = archive.namelist()
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
    assert names[:2] == ["00000/img00000000.png", "00000/img00000001.webp"]
    assert [name for name, _ in labels] == names[:-1]
    assert sorted(label for _, label in labels) == [0] * 13 + [1] * 12
    inspect_data("digits", out=tmp_path / "d.zip")
    assert json.loads(zipfile.ZipFile(tmp_path / "d.zip").read("dataset.json"))["labels"][0][1] == 0


def test_shards_share_the_pictures_evenly(folder: Path, tmp_path: Path) -> None:
    files = inspect_data(folder, out=tmp_path / "p/{8..11}.tar")["packed"]["files"]
    assert [Path(path).name for path in files] == ["8.tar", "9.tar", "10.tar", "11.tar"]
    names = [tarfile.TarFile(path).getnames() for path in files]
    assert [len(some) for some in names] == [12, 12, 12, 14]
    assert names[0][:3] == ["00000000.png", "00000000.cls", "00000001.webp"]


def test_a_set_without_classes_has_no_labels(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    for i in range(3):
        PIL.Image.new("L", (4, 4), i).save(tmp_path / "s" / f"{i}.png")
    for out in ("p.zip", "p.tar"):
        inspect_data(tmp_path / "s", out=tmp_path / out)
        assert open_source(tmp_path / out).classes is None


def test_broken_files_stay_behind_and_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / "cat" / "00.png").write_bytes(b"no picture")
    found = inspect_data(folder, out=tmp_path / "p.tar")
    assert (found["packed"]["pictures"], found["broken"]["count"]) == (NUM - 1, 1)
    assert "cat/00.png" in found["broken"]["listed"][0]["error"]
    assert len(open_source(tmp_path / "p.tar")) == NUM - 1


BAD_PLACES = {
    "p.rar": "neither x.zip",
    "p/{0..1}/{0..1}.tar": "names no shards",
    "p{0..1}/x.tar": "in a folder's name",
    "there.zip": "is there already",
    "there/{0..2}.tar": "is there already",
    "set/p.zip": "inside the source",
    "set/new/p.tar": "inside the source",
    "p/{0..99}.tar": "do not fill 100 files",
}


@pytest.mark.parametrize("out", BAD_PLACES)
def test_a_pack_that_cannot_be_is_one_line(out: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for there in (tmp_path / "there.zip", tmp_path / "there" / "2.tar"):
        there.write_bytes(b"mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=BAD_PLACES[out]):
        inspect_data(folder, out=tmp_path / out)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "message"), [({"size": 0, "out": "x.zip"}, "size: 0"), ({"size": 8}, "is for --pack")]
)
def test_a_size_that_cannot_be_is_one_line(words: dict, message: str, folder: Path) -> None:
    with pytest.raises(UsageError, match=message):
        inspect_data(folder, **words)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("out", PACKS)
def test_nothing_half_written_is_left(
    error: BaseException, out: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0
    file = pack._file

    def full(*arguments: object) -> object:
        nonlocal written
        written += 1
        if written > 10:
            raise error
        return file(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pack, "_file", full)
    with pytest.raises((CountermarkError, KeyboardInterrupt)):
        inspect_data(folder, out=tmp_path / out)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and folder not in path.parents] == []


def test_marks_in_files_survive(tmp_path: Path) -> None:
    """Files are copied byte for byte, what follows the picture too."""
    (tmp_path / "s").mkdir()
    data = encode(Image(np.zeros((4, 4, 3), np.uint8)), "png") + b"marks"
    (tmp_path / "s" / "a.png").write_bytes(data)
    inspect_data(tmp_path / "s", out=tmp_path / "p.tar")
    assert open_source(tmp_path / "p.tar").encoded(0) == data


def test_a_signal_to_end_leaves_nothing_half_written(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "countermark", "data", "mnist5k", "--pack", str(tmp_path / "x.zip")]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob(".partial-*/x.zip")):
        assert process.poll() is None
        time.sleep(0.01)
    process.terminate()
    _, said = process.communicate()
    assert process.returncode == 130
    assert "interrupted" in said
    assert not list(tmp_path.iterdir())
