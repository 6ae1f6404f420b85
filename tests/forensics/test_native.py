import numpy as np
import pytest

from countermark.core.media import Image
from countermark.forensics.native import native_view, re_encoded, repetition_factor


def picture(size: int = 32, channels: int = 1) -> np.ndarray:
    """Blobs with soft edges, like small samples."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    total = sum(np.exp(-((x - a) ** 2 + (y - b) ** 2) / 0.02) for a, b in rng.uniform(0, 1, (6, 2)))
    return np.repeat(np.rint(255 * np.clip(total, 0, 1)).astype(np.uint8)[..., None], channels, axis=2)


def repeated(samples: np.ndarray, factor: int) -> np.ndarray:
    return samples.repeat(factor, 0).repeat(factor, 1)


def test_native_size_is_taken_as_it_is() -> None:
    view, notes = native_view(Image(picture()), 32, 1)
    np.testing.assert_array_equal(view, picture())
    assert notes == []


@pytest.mark.parametrize("factor", [2, 3, 8])
def test_exact_repetition_is_undone(factor: int) -> None:
    view, notes = native_view(Image(repeated(picture(), factor)), 32, 1)
    np.testing.assert_array_equal(view, picture())
    assert f"{factor}-fold" in notes[0]


@pytest.mark.parametrize("codec", ["jpeg", "webp"])
def test_repetition_is_recognised_through_a_codec_and_faint_noise(codec: str) -> None:
    noise = np.random.default_rng(1).normal(0, 1.5, (256, 256, 1))
    marked = np.rint(repeated(picture(), 8) + noise).clip(0, 255).astype(np.uint8)
    view, _ = native_view(Image(re_encoded(marked, codec, 90)), 32, 1)
    assert view is not None
    assert np.abs(view.astype(int) - picture()).mean() < 1.5


def test_smooth_enlargement_and_photographs_are_not_repetition() -> None:
    import PIL.Image

    smooth = np.asarray(PIL.Image.fromarray(picture()[..., 0]).resize((256, 256), PIL.Image.Resampling.BICUBIC))
    assert repetition_factor(smooth[..., None], 32) is None
    assert repetition_factor(picture(256), 32) is None
    assert repetition_factor(np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8), 32) is None


@pytest.mark.parametrize("shape", [(256, 128, 1), (33, 33, 1), (16, 16, 1), (32, 64, 1)])
def test_other_sizes_are_outside(shape: tuple[int, int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    view, notes = native_view(Image(noise), 32, 1)
    assert view is None
    assert "it knows 32 x 32" in notes[0]


@pytest.mark.parametrize("size", [32, 256])
def test_a_blank_picture_is_not_judged(size: int) -> None:
    view, notes = native_view(Image(np.full((size, size, 1), 200, np.uint8)), 32, 1)
    assert view is None
    assert "blank" in notes[0]


def test_grey_stored_as_colour_is_grey_and_real_colour_is_not() -> None:
    view, notes = native_view(Image(picture(channels=3)), 32, 1)
    np.testing.assert_array_equal(view, picture())
    assert "equal" in notes[0]
    colour = picture(channels=3)
    colour[5, 5, 0] ^= 128
    assert native_view(Image(colour), 32, 1)[0] is None
    assert native_view(Image(picture()), 32, 3)[0] is None


def test_grey_survives_webp_which_has_no_grey() -> None:
    out = re_encoded(picture(), "webp", 80)
    assert out.shape == (32, 32, 1)
    assert np.abs(out.astype(int) - picture()).mean() < 5
