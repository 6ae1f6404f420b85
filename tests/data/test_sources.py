import io
import json
import os
import zipfile
from pathlib import Path

import PIL.Image
import pytest

from countermark.core.errors import CountermarkError, UsageError
from countermark.data.image import inspect, load
from countermark.data.sources import open_source


def png(value: int, size: tuple[int, int] = (4, 4), mode: str = "L") -> bytes:
    stream = io.BytesIO()
    PIL.Image.new(mode, size, value).save(stream, "PNG")
    return stream.getvalue()


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_folder_classes_by_subfolder_in_a_fixed_order(tmp_path: Path) -> None:
    for where in ("b/2.png", "a/1.png", "a/x/3.PNG"):
        (tmp_path / where).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / where).write_bytes(png(int(where[-5])))
    (tmp_path / "a/notes.txt").write_text("not a picture")
    source = open_source(tmp_path)
    assert source.class_names == ["a", "b"]
    assert source.classes is not None
    assert source.classes.tolist() == [0, 0, 1]
    assert [int(source.read(i)[0].samples[0, 0, 0]) for i in range(3)] == [1, 3, 2]


def test_what_a_mac_adds_to_a_zip_is_no_picture(tmp_path: Path) -> None:
    members = {"p/1.png": png(1), "__MACOSX/p/._1.png": b"resource fork", "p/.hidden.png": b"x"}
    assert len(open_source(make_zip(tmp_path / "mac.zip", members))) == 1


def test_a_flat_folder_has_no_classes(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(1))
    assert open_source(tmp_path).classes is None


def test_empty_and_unknown_sources_say_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no pictures"):
        open_source(tmp_path)
    with pytest.raises(UsageError, match="avatars, digits, emoji, faces64, mnist5k"):
        open_source("mnist6k")
    with pytest.raises(UsageError, match="no pictures"):
        open_source(make_zip(tmp_path / "e.zip", {"a.txt": b""}))
    with pytest.raises(UsageError):
        open_source("a\0b")


def test_links_inside_are_followed_and_links_that_leave_are_refused(tmp_path: Path) -> None:
    inside = tmp_path / "set"
    inside.mkdir()
    (inside / "1.png").write_bytes(png(1))
    os.symlink(inside / "1.png", inside / "2.png")
    assert len(open_source(inside)) == 2
    (tmp_path / "secret.png").write_bytes(png(9))
    os.symlink(tmp_path / "secret.png", inside / "3.png")
    with pytest.raises(UsageError, match="leaves"):
        open_source(inside)


def test_a_link_to_itself_is_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    os.symlink(tmp_path / "1.png", tmp_path / "1.png")
    source = open_source(tmp_path)
    with pytest.raises((OSError, CountermarkError), match=r"1\.png"):
        source.read(0)


def test_zip_with_stylegan_labels(tmp_path: Path) -> None:
    labels = {"labels": [["0/b.png", 2], ["0/a.png", 1]]}
    path = make_zip(
        tmp_path / "s.zip", {"0/b.png": png(2), "0/a.png": png(1), "dataset.json": json.dumps(labels).encode()}
    )
    source = open_source(path)
    assert source.classes is not None
    assert source.classes.tolist() == [1, 2]
    assert int(source.read(1)[0].samples[0, 0, 0]) == 2


@pytest.mark.parametrize(
    "labels", [b"[", b'{"labels": [["0/a.png", -1]]}', b'{"labels": [["z", 1]]}', b'{"labels": 3}', b"[" * 99999]
)
def test_damaged_labels_are_one_line(tmp_path: Path, labels: bytes) -> None:
    with pytest.raises(CountermarkError, match=r"dataset\.json"):
        open_source(make_zip(tmp_path / "s.zip", {"0/a.png": png(1), "dataset.json": labels}))


@pytest.mark.parametrize("name", ["../out.png", "a/../../out.png", "/etc/out.png", "C:\\out.png", "..\\out.png"])
def test_archives_that_leave_their_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CountermarkError, match="leaves"):
        open_source(make_zip(tmp_path / "z.zip", {name: png(1)}))


def test_links_in_archives_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(CountermarkError, match="is a link"):
        open_source(tmp_path / "z.zip")


def test_a_zip_bomb_is_read_up_to_the_limit_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("countermark.data.sources.MAX_FILE_BYTES", 2**20)
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(64 * 2**20))
    with pytest.raises(CountermarkError, match="limit"):
        open_source(tmp_path / "z.zip").read(0)


def test_a_damaged_member_is_one_line(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "z.zip", {"a.png": png(1)})
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(CountermarkError, match=r"a\.png"):
        open_source(path).read(0)


@pytest.mark.parametrize("label", [1000, 99_999, 10**30])
def test_one_label_out_of_range_does_not_make_thousands_of_classes(tmp_path: Path, label: int) -> None:
    labels = json.dumps({"labels": [["0/a.png", 0], ["0/b.png", label]]}).encode()
    path = make_zip(tmp_path / "s.zip", {"0/a.png": png(1), "0/b.png": png(2), "dataset.json": labels})
    with pytest.raises(CountermarkError, match=r"dataset\.json"):
        open_source(path)


def test_a_member_that_shrinks_like_no_picture_is_refused_unread(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(20 * 2**20))
        archive.writestr("blank.png", png(0, (2000, 2000)))
    source = open_source(tmp_path / "z.zip")
    assert source.read(0)[0].width == 2000
    with pytest.raises(CountermarkError, match=r"bomb\.png.*limit"):
        source.read(1)


def test_after_many_unreadable_pictures_the_rest_is_not_tried(tmp_path: Path) -> None:
    for i in range(300):
        (tmp_path / f"{i:03d}.png").write_bytes(b"no picture")
    with pytest.raises(CountermarkError, match="more than 100 of 300"):
        load(open_source(tmp_path), 8)
    for i in range(3, 300):
        (tmp_path / f"{i:03d}.png").unlink()
    with pytest.raises(CountermarkError, match="3 of 3 pictures"):
        inspect(open_source(tmp_path))


def test_no_name_is_not_the_folder_one_is_in() -> None:
    with pytest.raises(UsageError, match="no source"):
        open_source("")
