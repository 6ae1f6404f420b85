"""Sets that are streamed: the same pictures as in memory, whoever asks in whatever order, and no more than the cap."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.media import Image
from countermark.data.image import PictureSet, Shuffled, load
from countermark.data.packaged import ArraySource
from countermark.data.sources import Source, open_source
from countermark.data.splits import SHARES
from countermark.data.streamed import Decoded, Streamed
from countermark.forensics.pairs import FormatMatchedPairs
from countermark.perception.own import train_own
from tests.data.tars import make_shards, make_tar, png

NUM, SIDE = 40, 4
PICTURE_BYTES = SIDE * SIDE * 3


class Slowly(ArraySource):
    """Counts what it is asked for; can be told to fail."""

    def __init__(self) -> None:
        images = np.random.default_rng(0).integers(0, 256, (NUM, SIDE, SIDE, 3), np.uint8)
        super().__init__("made", images, np.arange(NUM) % 3, ["a", "b", "c"])
        self.num_reads, self.failing = 0, False

    def read(self, index: int) -> tuple[Image, str]:
        self.num_reads += 1
        if self.failing:
            raise CountermarkError("gone")
        return super().read(index)


def streamed(source: Source | None = None, fitting: int = 6, threads: int = 2) -> PictureSet:
    pictures = load(source or Slowly(), SIDE, memory_bytes=2 * fitting * PICTURE_BYTES, threads=threads)
    assert isinstance(pictures.images, Streamed)
    return pictures


def test_a_set_is_held_up_to_half_of_the_memory() -> None:
    assert isinstance(load(Slowly(), SIDE, memory_bytes=2 * NUM * PICTURE_BYTES).images, np.ndarray)
    assert isinstance(load(Slowly(), SIDE, memory_bytes=2 * NUM * PICTURE_BYTES - 1).images, Streamed)
    with pytest.raises(UsageError, match="a picture of 4 px is over half the memory"):
        load(Slowly(), SIDE, memory_bytes=2 * PICTURE_BYTES - 1)


HELD = load(Slowly(), SIDE)


@settings(max_examples=40, deadline=None)
@given(
    fitting=st.integers(1, NUM - 1),
    threads=st.integers(1, 5),
    places=st.lists(st.tuples(st.integers(0, 3 * NUM), st.integers(1, 2 * NUM)), min_size=1, max_size=6),
)
def test_batches_are_those_of_a_held_set_in_any_order_of_asking(
    fitting: int, threads: int, places: list[tuple[int, int]]
) -> None:
    pictures = streamed(fitting=fitting, threads=threads)
    ours, theirs = Shuffled(pictures.part("generator"), 5), Shuffled(HELD.part("generator"), 5)
    for position, num in places:
        np.testing.assert_array_equal(ours.at(position, num).images, theirs.at(position, num).images)
        np.testing.assert_array_equal(ours.at(position, num).classes, theirs.at(position, num).classes)
        assert isinstance(pictures.images, Streamed)
        assert len(pictures.images.decoded.kept) <= fitting


def test_it_reads_like_an_array() -> None:
    pictures = streamed()
    images, held = pictures.images, HELD.images
    assert (images.shape, images.ndim, images.dtype, len(images)) == (held.shape, 4, np.uint8, NUM)
    assert (pictures.size, pictures.channels, pictures.fingerprint) == (SIDE, 3, HELD.fingerprint)
    for key in (3, -1, slice(2, 9), slice(None, None, 7), [5, 5, 1], np.arange(NUM) % 2 == 0, slice(0, 0)):
        np.testing.assert_array_equal(images[key], held[key])
    np.testing.assert_array_equal(np.stack(list(images)), held)
    with pytest.raises(IndexError):
        images[NUM]
    for part in SHARES:
        np.testing.assert_array_equal(pictures.part(part).images[:], HELD.part(part).images)


def test_what_is_kept_cannot_be_written_on() -> None:
    with pytest.raises(ValueError, match="read-only"):
        streamed().images[0][:] = 0


def test_a_grey_picture_among_colours_is_colour(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    (tmp_path / "x.png").write_bytes(png(0, mode="RGB"))
    source = open_source(tmp_path)
    np.testing.assert_array_equal(streamed(source, fitting=2).images[:], load(source, SIDE).images)


def test_what_is_asked_for_next_is_decoded_before() -> None:
    source = Slowly()
    stream = Shuffled(streamed(source, fitting=30), 0)
    stream.at(0, 5)
    stream.pictures.images.decoded.pool.shutdown()  # type: ignore[union-attr]
    before = source.num_reads
    stream.pictures.images[stream._places(5, 10, 1)]
    assert source.num_reads == before == NUM + 15


def test_what_could_not_be_decoded_is_tried_again() -> None:
    source = Slowly()
    images = streamed(source).images
    source.failing = True
    with pytest.raises(CountermarkError, match="gone"):
        images[3]
    source.failing = False
    np.testing.assert_array_equal(images[3], HELD.images[3])


def test_a_picture_that_changes_while_it_is_in_use_is_named(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    images = streamed(open_source(tmp_path), fitting=2).images
    (tmp_path / "1.png").write_bytes(png(9))
    with pytest.raises(CountermarkError, match=r"1\.png: changed while it was in use"):
        images[1]


def test_a_detector_s_pairs_are_those_of_a_held_set() -> None:
    fakes = np.zeros((7, SIDE, SIDE, 3), np.uint8)
    ours, theirs = (FormatMatchedPairs(x.part("detector").images, fakes, seed=2) for x in (streamed(), HELD))
    np.testing.assert_array_equal(ours.at(3, 30).images, theirs.at(3, 30).images)


def test_features_of_a_streamed_set_are_those_of_a_held_one() -> None:
    own = train_own(HELD.held().images, HELD.classes, num_steps=2)
    np.testing.assert_array_equal(own(streamed().images), own(HELD.images))


def test_a_part_in_memory_is_as_much_as_fits_at_even_steps() -> None:
    assert HELD.held().images is HELD.images
    held = streamed(fitting=10).held()
    np.testing.assert_array_equal(held.images, HELD.images[::4])
    assert held.classes is not None
    np.testing.assert_array_equal(held.classes, HELD.classes[::4])  # type: ignore[index]
    assert [streamed(fitting=10).fitting(n) for n in (3, 10, 50)] == [3, 10, 10]
    assert HELD.fitting(50) == 50


def test_a_held_set_never_takes_more_than_the_cap(tmp_path: Path) -> None:
    """The last picture is the only one in colour, so everything before it was taken for grey."""
    num, side = 64, 64
    for i in range(num):
        (tmp_path / f"{i:02d}.png").write_bytes(png(i, (side, side), "RGB" if i == num - 1 else "L"))
    set_bytes = num * side * side * 3
    assert peak_bytes(lambda: load(open_source(tmp_path), side, memory_bytes=2 * set_bytes)) < 2 * set_bytes


def test_a_streamed_epoch_never_takes_more_than_the_cap(tmp_path: Path) -> None:
    source = open_source(make_shards(tmp_path, 4, 25, 128))
    cap = 60 * 128 * 128 * 3  # of 100 pictures

    def epoch() -> None:
        stream = Shuffled(load(source, 128, memory_bytes=cap), 0)
        for position in range(0, 100, 5):
            stream.at(position, 5)
        stream.pictures.images.decoded.pool.shutdown()  # type: ignore[union-attr]

    epoch()  # what is imported and cached on the way is no picture
    assert peak_bytes(epoch) < cap


def peak_bytes(work: object) -> int:
    tracemalloc.start()
    try:
        work()  # type: ignore[operator]
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_pictures_go_in_the_order_in_which_they_were_asked_for() -> None:
    decoded = Decoded(lambda number: np.full((1, 1, 1), number, np.uint8), most=3, threads=1)
    for number in (1, 2, 3, 1, 4):
        assert decoded.ask(number).result() == number
    assert list(decoded.kept) == [3, 1, 4]


def test_shards_streamed_and_held_are_one_set(tmp_path: Path) -> None:
    name = make_shards(tmp_path, 3, 20)
    held, small = load(open_source(name), 8), load(open_source(name), 8, memory_bytes=2 * 7 * 8 * 8 * 3)
    assert held.fingerprint == small.fingerprint
    for seed in (0, 1):
        ours, theirs = Shuffled(small, seed), Shuffled(held, seed)
        np.testing.assert_array_equal(ours.at(55, 20).images, theirs.at(55, 20).images)


def test_streaming_shards_decodes_nothing_before_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(make_tar(tmp_path / "x.tar", {f"{i}.png": png(i) for i in range(9)}))
    monkeypatch.setattr("countermark.data.encoded.decode_image", lambda *_, **__: pytest.fail("decoded"))
    assert streamed(source, fitting=2).channels == 1
