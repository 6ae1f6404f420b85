from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.files import sha256_hex
from countermark.data.image import PictureSet, Shuffled, inspect, load
from countermark.data.packaged import ArraySource
from countermark.data.sources import open_source
from countermark.data.splits import SHARES, indices_of, part_of


def folder(tmp_path: Path, *sizes: tuple[int, int], mode: str = "RGB") -> Path:
    rng = np.random.default_rng(0)
    for i, (width, height) in enumerate(sizes):
        PIL.Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).convert(mode).save(
            tmp_path / f"{i}.png"
        )
    return tmp_path


def test_mixed_and_oblong_sizes_ask_for_a_size(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"mixes 2 sizes \(8 x 8 and 9 x 9.*--size"):
        inspect(open_source(folder(tmp_path, (8, 8), (9, 9)))).common_size()
    (tmp_path / "o").mkdir()
    with pytest.raises(UsageError, match=r"8 x 6.*--size"):
        inspect(open_source(folder(tmp_path / "o", (8, 6)))).common_size()


def test_load_crops_the_centre_and_resizes(tmp_path: Path) -> None:
    stripes = np.zeros((4, 12, 3), np.uint8)
    stripes[:, 4:8] = 200
    PIL.Image.fromarray(stripes).save(tmp_path / "s.png")
    assert (load(open_source(tmp_path), 2).images == 200).all()


def test_a_set_is_grey_only_when_every_picture_is(tmp_path: Path) -> None:
    PIL.Image.new("L", (4, 4), 7).save(tmp_path / "a.png")
    assert load(open_source(tmp_path), 4).channels == 1
    PIL.Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "b.png")
    pictures = load(open_source(tmp_path), 4)
    assert pictures.images[:, 0, 0].tolist() == [[7, 7, 7], [1, 2, 3]]


def test_unreadable_pictures_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    folder(tmp_path, (4, 4), (4, 4))
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    for read in (inspect, lambda source: load(source, 4)):
        with pytest.raises(CountermarkError, match=r"1 of 3 pictures.*x\.png"):
            read(open_source(tmp_path))


def test_parts_cover_the_set_once_with_their_shares() -> None:
    units = [sha256_hex(str(i).encode()) for i in range(20000)]
    parts = [indices_of(part, units) for part in SHARES]
    assert sorted(np.concatenate(parts).tolist()) == list(range(20000))
    for share, part in zip(SHARES.values(), parts, strict=True):
        assert len(part) / 20000 == pytest.approx(share, abs=0.01)
    assert part_of("0" * 64) == "generator"
    assert part_of("f" * 64) == "test"


def made(num: int) -> PictureSet:
    images = np.random.default_rng(0).integers(0, 256, (num, 2, 2, 1), np.uint8)
    return load(ArraySource("made", images, np.arange(num) % 3, ["a", "b", "c"]), 2)


def test_equal_pictures_fall_into_one_part() -> None:
    pictures = made(50)
    twice = load(ArraySource("t", np.concatenate([pictures.images] * 2), np.zeros(100, np.int64), ["a"]), 2)
    assert [part_of(unit) for unit in twice.units[:50]] == [part_of(unit) for unit in twice.units[50:]]


def test_an_empty_part_says_how_many_pictures_there_are() -> None:
    one = made(1)
    empty = next(part for part in SHARES if part != part_of(one.units[0]))
    with pytest.raises(UsageError, match="none of the 1 pictures"):
        one.part(empty)


def test_the_stream_shows_every_picture_once_an_epoch_and_can_be_entered_anywhere() -> None:
    pictures = made(17)
    stream = Shuffled(pictures, seed=3)
    epoch = stream.at(17, 17)
    assert sorted(map(bytes, epoch.images)) == sorted(map(bytes, pictures.images))
    assert not np.array_equal(epoch.images, stream.at(0, 17).images)
    late = Shuffled(pictures, seed=3).at(25, 20)
    assert np.array_equal(late.images, np.concatenate([stream.at(25, 9).images, stream.at(34, 11).images]))
    assert late.classes is not None
    assert not np.array_equal(Shuffled(pictures, seed=4).at(0, 17).images, stream.at(0, 17).images)
