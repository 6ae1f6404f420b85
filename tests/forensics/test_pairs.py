import io
from collections import Counter

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.core.errors import UsageError
from countermark.forensics import pairs
from countermark.forensics.pairs import FormatMatchedPairs, Treatment, draw_treatment, treat


def pictures(num: int, *, start: int = 0, channels: int = 1) -> np.ndarray:
    """Flat pictures whose grey value is their number: a codec keeps them recognisable."""
    return (
        np.full((num, 16, 16, channels), 0, np.uint8)
        + np.arange(start, start + num, dtype=np.uint8)[:, None, None, None]
    )


def test_real_and_synthetic_go_through_the_very_same_treatments() -> None:
    stream = FormatMatchedPairs(pictures(7), pictures(11), seed=3)
    assert [stream.treatment(2 * k) for k in range(500)] == [stream.treatment(2 * k + 1) for k in range(500)]


def test_same_pictures_on_both_sides_come_out_the_same() -> None:
    """No side-channel: with equal contents, nothing in the bytes tells the classes apart."""
    same = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3)).astype(np.uint8)
    images = FormatMatchedPairs(same, same, seed=1).at(0, 80).images
    np.testing.assert_array_equal(images[::2], images[1::2])
    assert len(np.unique(images.reshape(80, -1), axis=0)) > 20


def test_codecs_and_qualities_are_drawn_in_the_shares_stated() -> None:
    drawn = [draw_treatment(0, k) for k in range(4000)]
    counts = Counter(t.codec for t in drawn)
    for codec, share in zip(pairs.QUALITIES, pairs.CODEC_WEIGHTS, strict=True):
        assert abs(counts[codec] / 4000 - share) < 4 * np.sqrt(share * (1 - share) / 4000)
    qualities = [t.quality for t in drawn if t.codec == "jpeg"]
    assert (min(qualities), max(qualities)) == (50, 100)
    assert abs(np.mean([t.blur_sigma_px > 0 for t in drawn]) - pairs.BLUR_PROBABILITY) < 0.02
    assert abs(np.mean([t.scale < 1 for t in drawn]) - pairs.RESIZE_PROBABILITY) < 0.02


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 12))
def test_entering_at_any_position_gives_the_same_bytes(position: int, first: int, second: int) -> None:
    stream = FormatMatchedPairs(pictures(5), pictures(3, start=100), seed=7)
    whole = FormatMatchedPairs(pictures(5), pictures(3, start=100), seed=7).at(position, first + second)
    parts = [stream.at(position, first), stream.at(position + first, second)]
    np.testing.assert_array_equal(whole.images, np.concatenate([part.images for part in parts]))
    np.testing.assert_array_equal(whole.classes, np.concatenate([part.classes for part in parts]))


def test_classes_alternate_and_follow_the_side() -> None:
    batch = FormatMatchedPairs(pictures(4), pictures(4, start=200), seed=0).at(0, 64)
    assert batch.images.dtype == np.uint8
    assert batch.images.shape == (64, 16, 16, 1)
    np.testing.assert_array_equal(batch.classes, np.arange(64) % 2)
    np.testing.assert_array_equal(batch.images.mean(axis=(1, 2, 3)) > 100, batch.classes == 1)


def test_every_picture_of_a_side_is_drawn_once_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "treat", lambda samples, treatment: samples)
    stream = FormatMatchedPairs(pictures(5), pictures(3, start=100), seed=2)
    images = stream.at(0, 30).images[:, 0, 0, 0]
    assert [sorted(images[::2][k : k + 5].tolist()) for k in (0, 5, 10)] == [[0, 1, 2, 3, 4]] * 3
    assert [sorted(images[1::2][k : k + 3].tolist()) for k in range(0, 15, 3)] == [[100, 101, 102]] * 5
    assert (
        images[::2][:5].tolist() != images[::2][5:10].tolist() or images[::2][:5].tolist() != images[::2][10:].tolist()
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_treatments_do_what_they_say_and_keep_the_shape(channels: int) -> None:
    noisy = np.random.default_rng(0).integers(0, 256, (32, 32, channels)).astype(np.uint8)
    assert treat(noisy, Treatment(1.0, 0.0, "none", 0)) is noisy
    for treatment in (Treatment(0.7, 0, "none", 0), Treatment(1, 1.0, "none", 0), Treatment(1, 0, "webp", 60)):
        out = treat(noisy, treatment)
        assert out.shape == noisy.shape
        assert out.dtype == np.uint8
        assert out.astype(float).std() < noisy.astype(float).std()
    picture = PIL.Image.fromarray(noisy.squeeze())
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=60)
    expected = np.asarray(PIL.Image.open(encoded)).reshape(noisy.shape)
    np.testing.assert_array_equal(treat(noisy, Treatment(1, 0, "jpeg", 60)), expected)


def test_sides_that_cannot_be_matched_are_refused() -> None:
    with pytest.raises(UsageError, match="learn the size"):
        FormatMatchedPairs(pictures(2), pictures(2, channels=3))
    with pytest.raises(UsageError, match="fake"):
        FormatMatchedPairs(pictures(2), pictures(0))
    with pytest.raises(UsageError, match="real"):
        FormatMatchedPairs(pictures(2).astype(np.float32), pictures(2))
