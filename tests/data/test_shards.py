"""Tar shards: what names them, what they hold, and what they may not."""

import gzip
import io
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from countermark.core.errors import CountermarkError, UsageError
from countermark.data import shard_index, tar
from countermark.data.image import inspect, load
from countermark.data.shards import ShardSource, shard_paths
from countermark.data.sources import open_source
from tests.data.tars import make_shards, make_tar, member, png


def values(source: ShardSource) -> list[int]:
    return [int(source.read(i)[0].samples[0, 0, 0]) for i in range(len(source))]


@given(st.integers(0, 999), st.integers(0, 30), st.booleans())
def test_a_range_names_its_shards_in_order(first: int, more: int, padded: bool) -> None:
    width = 4 if padded else 0
    name = f"s/{{{first:0{width}d}..{first + more:0{width}d}}}.tar"
    assert shard_paths(name) == [Path(f"s/{i:0{width}d}.tar") for i in range(first, first + more + 1)]


@pytest.mark.parametrize("name", ["{3..1}.tar", "{0..1}/{0..1}.tar", "{a..b}.tar", "{0..999999}.tar", "{.tar"])
def test_a_range_that_is_none_is_one_line(name: str) -> None:
    with pytest.raises(UsageError, match="in quotes"):
        open_source(name)


def test_pictures_come_in_the_order_of_shards_and_archives_with_their_classes(tmp_path: Path) -> None:
    make_tar(tmp_path / "00.tar", {"b.png": png(1), "b.cls": b"2", "a.json": b'{"label": 1}', "a.png": png(2)})
    make_tar(tmp_path / "01.tar", {"./b.PNG": png(3), "./b.cls": b" 0\n", "./b.txt": b"a caption", "._b.png": b"mac"})
    source = open_source(f"{tmp_path}/{{00..01}}.tar")
    assert values(source) == [1, 2, 3]
    assert source.classes is not None
    assert source.classes.tolist() == [2, 1, 0]
    assert source.class_names == ["0", "1", "2"]
    assert source.label(2) == f"{tmp_path}/01.tar:b.PNG"


def test_classes_by_folder_where_there_are_no_labels(tmp_path: Path) -> None:
    make_tar(tmp_path / "0.tar", {"./dog/1.png": png(1), "./cat/x/1.png": png(2)})
    source = open_source(tmp_path / "0.tar")
    assert source.classes is not None
    assert (source.class_names, source.classes.tolist()) == (["cat", "dog"], [1, 0])
    assert open_source(make_tar(tmp_path / "1.tar", {"1.png": png(1), "cat/1.png": png(2)})).classes is None


def test_shards_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = make_shards(tmp_path / "s")
    first = load(open_source(name), 8)
    monkeypatch.setattr(shard_index, "members", lambda *_: pytest.fail("read again"))
    monkeypatch.setattr(shard_index, "decode_image", lambda *_, **__: pytest.fail("decoded again"))
    again = open_source(name)
    assert (inspect(again).sizes, len(again)) == ({(8, 8): 60}, 60)
    assert load(again, 8).fingerprint == first.fingerprint
    assert again.known() == (3, first.units)


def test_other_shards_of_the_same_name_are_read_again(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "x.tar", {"a.png": png(1)})
    assert values(open_source(path)) == [1]
    make_tar(path, {"a.png": png(1), "b.png": png(2)})
    assert values(open_source(path)) == [1, 2]


@pytest.mark.parametrize(
    "damage", [lambda d: d[: len(d) // 2], lambda d: b"", lambda d: d.replace(b'"names"', b'"nemas"')]
)
def test_a_damaged_index_is_made_again(tmp_path: Path, home: Path, damage: object) -> None:
    path = make_tar(tmp_path / "x.tar", {"a.png": png(1), "b.png": png(2)})
    assert values(open_source(path)) == [1, 2]
    (kept,) = (home / "cache").glob("shards-*")
    kept.write_bytes(damage(kept.read_bytes()))  # type: ignore[operator]
    assert values(open_source(path)) == [1, 2]


@pytest.mark.parametrize(
    ("column", "value"),
    [("shard", 1), ("shard", -1), ("offset", -1), ("offset", 10**6), ("size", 10**12), ("channels", 2), ("width", 0)],
)
def test_an_index_that_cannot_be_is_made_again(tmp_path: Path, home: Path, column: str, value: int) -> None:
    import safetensors.numpy

    path = make_tar(tmp_path / "x.tar", {"a.png": png(1), "b.png": png(2)})
    open_source(path)
    (kept,) = (home / "cache").glob("shards-*")
    arrays = {name: array.copy() for name, array in safetensors.numpy.load(kept.read_bytes()).items()}
    arrays[column][1] = value
    kept.write_bytes(safetensors.numpy.save(arrays))
    source = open_source(path)
    assert isinstance(source, ShardSource)
    assert source.index.columns[column][1] != value
    assert values(source) == [1, 2]


def test_a_broken_picture_is_known_from_the_index(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "x.tar", {"a.png": png(1), "b.png": png(2)[:40]})
    for source in (open_source(path), open_source(path)):
        assert source.read(0)[0].width == 4
        with pytest.raises(CountermarkError, match=r"1 of 2 pictures cannot be read.*x\.tar:b\.png"):
            inspect(source)


HOSTILE = {
    "link": (member("a.png", kind=tarfile.SYMTYPE, linkname="/etc/passwd"), "is a link"),
    "hard link": (member("a.png", kind=tarfile.LNKTYPE, linkname="b.png"), "is a link"),
    "device": (member("a.png", kind=tarfile.CHRTYPE), "no plain file"),
    "pipe": (member("a.png", kind=tarfile.FIFOTYPE), "no plain file"),
    "leaves": (member("../a.png", png(1)), "leaves"),
    "leaves later": (member("a/../../b.png", png(1)), "leaves"),
    "absolute": (member("/etc/a.png", png(1)), "leaves"),
    "drive": (member("C:\\a.png", png(1)), "leaves"),
    "two of a key": (member("a.png", png(1)) + member("a.jpg", png(1)), "second picture of the key a"),
    "a mask beside": (member("a.png", png(1)) + member("a.seg.png", png(1)), "second picture of the key a"),
    "huge": (member("a.png", size=2**40), "over the limit"),
    "below nothing": (member("a.png", size=-512), "no tar or a damaged one|no plain file"),
    "no class": (member("a.png", png(1)) + member("b.png", png(2)) + member("b.cls", b"1"), "a.png has no class"),
    "class of another kind": (member("a.png", png(1)) + member("a.cls", b"cat"), "whole number"),
    "class below zero": (member("a.png", png(1)) + member("a.cls", b"-1"), "whole number"),
    "class out of range": (member("a.png", png(1)) + member("a.cls", b"99999"), "too high"),
    "class without end": (member("a.png", png(1)) + member("a.cls", b"9" * 10**5), "whole number"),
    "nested json": (member("a.png", png(1)) + member("a.json", b"[" * 10**5), "whole number"),
    "truth": (member("a.png", png(1)) + member("a.json", b'{"label": true}'), "whole number"),
    "nothing": (b"", "holds no pictures"),
    "text": (b"no tar at all" * 100, "no tar"),
    "long attributes": (member("x", b"9" * 10**6, kind=tarfile.XHDTYPE) + member("a.png", png(1)), "damaged"),
    "digits": (member("x", b"9" * 8000, kind=tarfile.XHDTYPE) + member("a.png", png(1)), "damaged"),
    "attributes of attributes": (member("x", b"10 a=bcde\n", kind=tarfile.XHDTYPE) * 5000, "damaged"),
    "long name": (member("x", b"a" * 10**6, kind=tarfile.GNUTYPE_LONGNAME) + member("a.png", png(1)), "damaged"),
    "sparse": (member("a.png", png(1), kind=tarfile.GNUTYPE_SPARSE), "no plain file"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_tars_are_one_line(case: str, tmp_path: Path) -> None:
    data, message = HOSTILE[case]
    (tmp_path / "x.tar").write_bytes(data + bytes(1024))
    start = time.process_time()
    with pytest.raises(CountermarkError, match=message) as caught:
        open_source(tmp_path / "x.tar")
    assert "\n" not in str(caught.value)
    assert time.process_time() - start < 5


def test_compressed_tars_are_refused_and_not_unpacked(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "x.tar", {"a.png": png(1)})
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(CountermarkError, match="not compressed"):
        open_source(path)


@pytest.mark.parametrize("kept", [0, 100, 512, 600, 1024, 1500, 2048])
def test_a_tar_that_ends_too_early_is_never_taken_for_a_shorter_one(tmp_path: Path, kept: int) -> None:
    path = make_tar(tmp_path / "x.tar", {"a.png": png(1), "b.png": png(2)})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CountermarkError, match=r"damaged"):
        open_source(path)


def test_a_damaged_header_in_the_middle_is_no_end(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "x.tar", {"a.png": png(1), "b.png": png(2)})
    data = bytearray(path.read_bytes())
    data[1024 + 3] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(CountermarkError, match="damaged or cut off after 1 members"):
        open_source(path)


@pytest.mark.parametrize("num_kept", [1024, 2048])
def test_zeros_that_a_download_has_not_filled_yet_are_no_end(tmp_path: Path, num_kept: int) -> None:
    path = make_tar(tmp_path / "x.tar", {f"{i}.png": png(i) for i in range(8)})
    data = path.read_bytes()
    path.write_bytes(data[:num_kept] + bytes(1024) + data[num_kept + 1024 :])
    with pytest.raises(CountermarkError, match="damaged or cut off"):
        open_source(path)
    path.write_bytes(data[:num_kept] + bytes(3 * 2**20))
    with pytest.raises(CountermarkError, match="damaged or cut off"):
        open_source(path)


def test_missing_shards_are_counted(tmp_path: Path) -> None:
    make_shards(tmp_path, 2)
    with pytest.raises(UsageError, match=r"2 of 4 shards are not there, first .*02\.tar"):
        open_source(f"{tmp_path}/{{00..03}}.tar")
    with pytest.raises(UsageError, match="1 of 1 shards"):
        open_source(tmp_path / "nowhere.tar")


def test_names_that_are_no_text_are_read_and_shown_safely(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "x.tar", {"\udcff\x1b[31m.png": png(5)})
    for source in (open_source(path), open_source(path)):
        assert values(source) == [5]
        assert source.label(0).endswith(r"x.tar:\udcff\x1b[31m.png")


def test_a_hundred_thousand_members_take_seconds(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(b"".join(member(f"{i}.txt") for i in range(100_000)) + member("a.png", png(1)) + bytes(1024))
    start = time.process_time()
    assert len(open_source(path)) == 1
    assert time.process_time() - start < 20


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "MAX_MEMBERS", 3)
    with pytest.raises(CountermarkError, match="more than 3 members"):
        open_source(make_tar(tmp_path / "x.tar", {f"{i}.png": png(i) for i in range(4)}))


def test_a_shard_that_shrinks_while_it_is_used_is_one_line(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "x.tar", {"a.png": png(1), "b.png": png(2)})
    source = open_source(path)
    path.write_bytes(path.read_bytes()[:1100])
    assert source.read(0)[0].samples[0, 0, 0] == 1
    with pytest.raises(CountermarkError, match="became shorter"):
        source.read(1)


def test_webdataset_s_own_writer_is_understood(tmp_path: Path) -> None:
    """As its TarWriter writes: keys in order, suffixes sorted, times of now, pax headers for long names."""
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in ((f"{'k' * 150}.cls", b"0"), (f"{'k' * 150}.png", png(7))):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), time.time()
            archive.addfile(info, io.BytesIO(data))
    source = open_source(tmp_path / "x.tar")
    assert values(source) == [7]
    assert np.array_equal(source.classes, [0])
