"""`countermark data`: what it finds in a set, and what it says of it."""

import json
import re
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from countermark.apps.cli import main
from countermark.core.errors import UsageError
from countermark.core.media import Image
from countermark.jobs.data import as_lines, inspect_data
from countermark.provenance.encode import encode
from tests.data.tars import make_tar, png


def structured(seed: int, side: int = 64) -> np.ndarray:
    """A picture with structure uint8 [side,side,3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), np.uint8)
    return np.asarray(PIL.Image.fromarray(coarse).resize((side, side), PIL.Image.Resampling.BICUBIC))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five sound pictures in two classes, three of them alike (two of the same pixels, one a JPEG), and two broken."""
    files = {
        "cat/a.png": encode(Image(structured(0)), "png"),
        "cat/a again.png": encode(Image(structured(0)), "png"),
        "cat/b.png": encode(Image(structured(1, 80)), "png"),
        "dog/a.jpg": encode(Image(structured(0)), "jpeg", quality=80),
        "dog/c.png": png(7, (64, 64)),
        "dog/<script>.png": b"\x89PNG\r\n\x1a\nrubbish",
        "dog/text.png": b"no picture",
    }
    for name, data in files.items():
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "set"


def test_it_counts_what_there_is(folder: Path) -> None:
    found = inspect_data(folder)
    assert found["pictures"] == 5
    assert found["sizes"] == {"64x64": 4, "80x80": 1}
    assert found["channels"] == {"1": 1, "3": 4}
    assert found["classes"] == {"cat": 3, "dog": 2}
    assert sum(found["parts"].values()) == 5
    exact, near = found["duplicates"]["exact"], found["duplicates"]["near"]
    assert (exact["groups"], exact["surplus"]) == (near["groups"], near["surplus"]) == (1, 1)
    assert exact["listed"] == [[f"{folder}/cat/a again.png", f"{folder}/cat/a.png"]]
    assert near["listed"] == [[f"{folder}/cat/a again.png", f"{folder}/dog/a.jpg"]]
    assert found["broken"]["count"] == 2
    assert [re.search(r"dog/[^:]*", entry["error"])[0] for entry in found["broken"]["listed"]] == [  # type: ignore[index]
        "dog/<script>.png",
        "dog/text.png",
    ]


def test_people_read_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", str(folder)]) == 0, "broken files are found and no failure"
    shown = capsys.readouterr().out
    assert shown.splitlines() == as_lines(inspect_data(folder))
    for words in ("5 pictures", "cat 3, dog 2", "1 to spare in 1 groups", "broken: 2", "text.png"):
        assert words in shown


def test_a_set_of_broken_files_alone_is_reported(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no picture")
    found = inspect_data(tmp_path, page=tmp_path / "sheet.html")
    assert (found["pictures"], found["broken"]["count"]) == (0, 1)


def test_broken_pictures_of_shards_are_reported(tmp_path: Path) -> None:
    found = inspect_data(make_tar(tmp_path / "x.tar", {"a.png": png(1), "b.png": png(2)[:40]}))
    assert (found["pictures"], found["broken"]["count"]) == (1, 1)
    assert "x.tar:b.png" in found["broken"]["listed"][0]["error"]


def test_small_pictures_have_no_look_of_their_own() -> None:
    assert inspect_data("digits")["duplicates"]["near"]["groups"] == 0


def test_the_sheet_shows_pictures_duplicates_and_broken_files(folder: Path, tmp_path: Path) -> None:
    found = inspect_data(folder, page=tmp_path / "sheet.html")
    page = (tmp_path / "sheet.html").read_text()
    assert page.count("<img ") == 5 + 2 + 2
    assert set(re.findall(r'src="([^;]*)', page)) == {"data:image/png", "data:image/jpeg"} or "image/png" in page
    assert "<script>" not in page
    assert "&lt;script&gt;.png" in page
    assert "http" not in page, "self-contained"
    assert inspect_data(folder, page=tmp_path / "sheet.html") == found, "its own page may be written again"
    for name, reason in (("notes.txt", "is no name for a page"), ("notes.html", "is there and is no page")):
        (tmp_path / name).write_text("mine")
        with pytest.raises(UsageError, match=f"sheet: .* {reason}"):
            inspect_data(folder, page=tmp_path / name)


def test_large_pictures_are_shown_small(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "a.png").write_bytes(encode(Image(np.tile(structured(0, 400), (1, 5, 1))), "png"))
    inspect_data(tmp_path / "s", page=tmp_path / "sheet.html")
    assert len((tmp_path / "sheet.html").read_bytes()) < 20_000


def test_synthetic_sets_do_not_leave(tmp_path: Path) -> None:
    for words in ({"out": tmp_path / "x.zip"}, {"page": tmp_path / "x.html"}):
        with pytest.raises(UsageError, match="a generator made the pictures of faces64"):
            inspect_data("faces64", **words)
    assert not list(tmp_path.iterdir())


def test_json_is_one_document(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == inspect_data(folder)
