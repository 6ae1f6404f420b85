import numpy as np
import pytest
import scipy.fft

from countermark.provenance import canonical


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).uniform(0, 255, (height, width)).astype(np.float32)


def test_view_at_its_own_size_is_the_block_dct() -> None:
    y = noise(256, 256)
    blocks = scipy.fft.dctn(y.reshape(32, 8, 32, 8), axes=(1, 3), norm="ortho").transpose(0, 2, 1, 3)
    np.testing.assert_allclose(canonical.view(y), blocks[..., :5, :5], atol=1e-3)


@pytest.mark.parametrize("size", [(256, 256), (300, 257), (128, 500)])
def test_orientations_are_the_views_of_the_turned_pictures(size: tuple[int, int]) -> None:
    y = noise(*size)
    turned = [turn for base in (y, y.T) for flip in (base, base[::-1]) for turn in (flip, flip[:, ::-1])]
    views = canonical.orientations(canonical.view(y))
    assert len(views) == canonical.NUM_ORIENTATIONS
    for expected, got in zip(turned, views, strict=True):
        np.testing.assert_allclose(got, canonical.view(np.ascontiguousarray(expected)), atol=2e-3)


@pytest.mark.parametrize("size", [(128, 131), (256, 256), (512, 300), (1500, 2000)])
def test_flat_pictures_stay_flat(size: tuple[int, int]) -> None:
    np.testing.assert_allclose(canonical.square(np.full(size, 200, dtype=np.float32)), 200, rtol=1e-5)


@pytest.mark.parametrize("size", [(256, 256), (300, 257), (1024, 300)])
def test_spread_is_nearly_the_inverse_of_view(size: tuple[int, int]) -> None:
    view = np.zeros((32, 32, 5, 5), dtype=np.float32)
    view[..., 1:3, 1:3] = np.random.default_rng(0).normal(0, 5, (32, 32, 2, 2))
    error = canonical.view(canonical.spread(view, *size)) - view
    assert np.sqrt(np.mean(error[..., 1:3, 1:3] ** 2)) < 0.2 * 5


def test_luma_weights() -> None:
    assert canonical.luma(np.full((2, 2, 3), 255, dtype=np.uint8)) == pytest.approx(255)
    green = np.zeros((1, 1, 3), dtype=np.uint8)
    green[..., 1] = 100
    assert canonical.luma(green)[0, 0] == pytest.approx(58.7)
    assert canonical.luma(np.full((1, 1, 1), 7, dtype=np.uint8))[0, 0] == 7
