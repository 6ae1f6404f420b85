"""Each transformation against one made by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from countermark.nn.transformations import (
    SYM2,
    SYM6,
    _Lookup,
    amplify_octaves,
    blit,
    cut_out,
    octave_filters,
    recolour,
    warp,
)


def _pictures(num: int = 2, channels: int = 3, size: int = 16, seed: int = 0) -> Tensor:
    return torch.randn(num, channels, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _matrix(a: float, b: float, c: float, d: float, x: float = 0.0, y: float = 0.0) -> Tensor:
    return torch.tensor([[[a, b, x], [c, d, y], [0, 0, 1]]], dtype=torch.float64)


FLIP = _matrix(-1, 0, 0, 1)
QUARTER = _matrix(0, -1, 1, 0)  # clockwise: right goes down


def _shift(x: float, y: float) -> Tensor:
    return _matrix(1, 0, 0, 1, x, y)


def _both(matrix: Tensor) -> Tensor:
    return matrix.expand(2, -1, -1)


@pytest.mark.parametrize("taps", [SYM2, SYM6])
def test_wavelet_filters_are_orthonormal(taps: tuple[float, ...]) -> None:
    for lag in range(0, len(taps), 2):
        overlap = np.dot(taps[lag:], taps[: len(taps) - lag])
        assert overlap == pytest.approx(float(lag == 0), abs=1e-10)
    high = [tap * (-1) ** k for k, tap in enumerate(taps)]
    for moment in range(len(taps) // 2):
        assert sum(tap * k**moment for k, tap in enumerate(high)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("size", [4, 7, 8, 16])
def test_flips_and_quarter_turns_are_exact(size: int) -> None:
    x = _pictures(size=size)
    assert torch.equal(blit(x, _both(FLIP)), x.flip(3))
    assert torch.equal(blit(x, _both(QUARTER)), x.rot90(-1, (2, 3)))
    assert torch.equal(blit(x, _both(QUARTER @ QUARTER)), x.flip(2, 3))


def test_whole_shifts_are_exact_and_mirror_the_border() -> None:
    x = _pictures(size=8)
    expected = F.pad(x, (2, 0, 0, 1), mode="reflect")[:, :, 1:, :-2]  # two to the right, one up
    assert torch.equal(blit(x, _both(_shift(2, -1))), expected)


def test_every_picture_has_its_own_matrix_and_the_last_factor_acts_first() -> None:
    x = _pictures(size=8)
    moved = blit(x, torch.cat([_shift(1, 0) @ QUARTER, FLIP]))
    turned = x[0].rot90(-1, (1, 2))
    assert torch.equal(moved[0], F.pad(turned, (1, 0, 0, 0), mode="reflect")[..., :-1])
    assert torch.equal(moved[1], x[1].flip(2))


@pytest.mark.parametrize("size", [4, 8, 17, 64])
def test_warp_by_nothing_changes_nothing(size: int) -> None:
    x = _pictures(size=size)
    torch.testing.assert_close(warp(x, _both(torch.eye(3, dtype=torch.float64)[None])), x, atol=1e-6, rtol=0)


def test_warp_by_a_whole_shift_is_that_shift() -> None:
    x, matrices = _pictures(), _both(_shift(2, -1))
    torch.testing.assert_close(warp(x, matrices), blit(x, matrices), atol=1e-6, rtol=0)


def _wave(x: Tensor, y: Tensor) -> Tensor:
    return torch.cos(0.15 * x + 0.4) * torch.sin(0.1 * y - 0.3)


def _sampled(inverse: Tensor, size: int = 32) -> Tensor:
    """The wave at where `inverse` [1,3,3] puts every pixel."""
    places = torch.arange(size).double() - (size - 1) / 2
    y, x = torch.meshgrid(places, places, indexing="ij")
    x, y, _ = inverse[0] @ torch.stack([x, y, torch.ones_like(x)]).flatten(1)
    return _wave(x, y).view(1, 1, size, size)


@pytest.mark.parametrize(
    ("matrix", "tolerance"),
    [
        (_shift(0.5, -2.25), 0.01),
        (_matrix(2, 0, 0, 2), 0.05),
        (_matrix(1.2, 0, 0, 1 / 1.2), 0.05),
        (_matrix(math.cos(1), -math.sin(1), math.sin(1), math.cos(1)), 0.1),
    ],
    ids=["fraction", "scale", "stretch", "rotation"],
)
def test_warp_of_a_smooth_wave_is_the_wave_elsewhere(matrix: Tensor, tolerance: float) -> None:
    """Where no border shows. sym6's delay, a fifth of a pixel, turns with the picture: hence the tolerance."""
    x = _sampled(torch.eye(3, dtype=torch.float64)[None])
    middle = (..., slice(8, 24), slice(8, 24))
    expected = _sampled(torch.linalg.inv(matrix))
    torch.testing.assert_close(warp(x, matrix)[middle], expected[middle], atol=tolerance, rtol=0)


def test_a_flat_picture_stays_flat_under_any_warp() -> None:
    generator = torch.Generator().manual_seed(0)
    matrices = torch.eye(3) + torch.tensor([[0.5], [0.5], [0]]) * torch.randn(64, 3, 3, generator=generator)
    matrices[:, :2, 2] *= 8
    x = torch.full((64, 1, 16, 16), 0.7)
    torch.testing.assert_close(warp(x, matrices), x, atol=1e-5, rtol=0)


def test_lookup_has_torchs_gradient_and_exact_second_derivatives() -> None:
    generator = torch.Generator().manual_seed(0)
    grid = 3 * torch.rand(1, 4, 4, 2, generator=generator, dtype=torch.float64) - 1.5
    for mode in ("bilinear", "nearest"):
        for align_corners in (True, False):
            x = _pictures(1, 2, 5).requires_grad_()
            ours = _Lookup.apply(x, grid, mode, align_corners)
            torchs = F.grid_sample(x, grid, mode, "reflection", align_corners)
            assert torch.equal(ours, torchs)
            weights = _pictures(1, 2, 4, seed=1)
            assert torch.equal(
                *(torch.autograd.grad((out * weights).sum(), x, retain_graph=True)[0] for out in (ours, torchs))
            )

            def squared(x: Tensor, mode: str = mode, align_corners: bool = align_corners) -> Tensor:
                return _Lookup.apply(x, grid, mode, align_corners).square()

            assert torch.autograd.gradcheck(squared, x)
            assert torch.autograd.gradgradcheck(squared, x)


NEUTRAL = {"brightness": 0.0, "contrast": 1.0, "luma": 1.0, "hue": 0.0, "saturation": 1.0}


def _recoloured(x: Tensor, **changes: float) -> Tensor:
    return recolour(x, **{name: torch.full((len(x),), v).to(x) for name, v in {**NEUTRAL, **changes}.items()})


def _luma(x: Tensor) -> Tensor:
    return x.mean(1, keepdim=True)


def test_neutral_colours_change_nothing() -> None:
    for channels in (1, 3):
        x = _pictures(channels=channels)
        torch.testing.assert_close(_recoloured(x), x)


def test_brightness_and_contrast() -> None:
    for channels in (1, 3):
        x = _pictures(channels=channels)
        torch.testing.assert_close(_recoloured(x, brightness=0.3), x + 0.3)
        torch.testing.assert_close(_recoloured(x, contrast=1.7), 1.7 * x)
        torch.testing.assert_close(_recoloured(x, brightness=0.3, contrast=1.7), 1.7 * (x + 0.3))


def test_luma_flip_negates_luma_and_keeps_the_rest() -> None:
    x = _pictures()
    torch.testing.assert_close(_recoloured(x, luma=-1), x - 2 * _luma(x))
    grey = _pictures(channels=1)
    torch.testing.assert_close(_recoloured(grey, luma=-1), -grey)


def test_hue_keeps_luma_and_length_and_a_third_of_a_turn_moves_the_channels_on() -> None:
    x = _pictures()
    turned = _recoloured(x, hue=1.1)
    torch.testing.assert_close(_luma(turned), _luma(x))
    torch.testing.assert_close(turned.square().sum(1), x.square().sum(1))
    assert (turned - x).abs().max() > 0.1
    torch.testing.assert_close(_recoloured(x, hue=2 * math.pi / 3), x.roll(1, 1), atol=1e-6, rtol=0)


def test_saturation_scales_what_is_not_luma() -> None:
    x = _pictures()
    torch.testing.assert_close(_recoloured(x, saturation=0.0), _luma(x).expand_as(x))
    torch.testing.assert_close(_recoloured(x, saturation=2.0), 2 * x - _luma(x))


def test_a_grey_picture_is_a_picture_in_colour_with_equal_channels() -> None:
    grey = _pictures(channels=1)
    changes = {"brightness": 0.2, "contrast": 0.7, "luma": -1.0, "hue": 2.0, "saturation": 3.0}
    torch.testing.assert_close(_recoloured(grey.expand(-1, 3, -1, -1), **changes)[:, :1], _recoloured(grey, **changes))


def test_octaves_add_up_to_the_picture_and_lie_where_they_should() -> None:
    filters = octave_filters().numpy()
    one = np.zeros(43)
    one[21] = 1
    np.testing.assert_allclose(filters.sum(0), one, atol=1e-12)
    np.testing.assert_allclose(filters, filters[:, ::-1], atol=1e-12)
    for band, frequency in enumerate([0, 3 / 16, 3 / 8, 1]):  # of the highest
        gains = filters @ np.cos(math.pi * frequency * np.arange(-21, 22))
        assert gains.argmax() == band
        assert gains[band] > 0.6


def test_octaves_equal_two_convolutions() -> None:
    x = _pictures(size=48)
    gains = torch.tensor([[0.5, 2.0, 1.0, 3.0], [1.0, 1.0, 0.1, 1.0]]).double()
    taps = (gains @ octave_filters())[:, None].repeat_interleave(3, 0)  # a filter a picture and a channel
    expected = F.pad(x.view(1, 6, 48, 48), (21,) * 4, mode="reflect")
    expected = F.conv2d(F.conv2d(expected, taps[:, :, None], groups=6), taps[:, :, :, None], groups=6)
    torch.testing.assert_close(amplify_octaves(x, gains), expected.view_as(x))


@pytest.mark.parametrize("size", [4, 8, 64])
def test_octaves_of_flat_pictures_and_chessboards(size: int) -> None:
    flat = torch.ones(1, 1, size, size)
    gains = torch.tensor([[0.5, 2.0, 3.0, 4.0]])
    torch.testing.assert_close(amplify_octaves(flat, gains), 0.25 * flat)
    chess = (torch.arange(size)[:, None] + torch.arange(size)).remainder(2).float().mul(2).sub(1)[None, None]
    torch.testing.assert_close(amplify_octaves(chess, gains), 16 * chess)
    torch.testing.assert_close(amplify_octaves(chess, torch.ones(1, 4)), chess)


def test_cut_outs() -> None:
    x = torch.ones(3, 2, 16, 16)
    cut = cut_out(x, torch.tensor([[0.5, 0.5], [0.0, 1.0], [0.25, 0.5]]), 0.5)
    expected = torch.ones(3, 2, 16, 16)
    expected[0, :, 4:12, 4:12] = 0
    expected[1, :, 12:, :4] = 0  # x is 0: at the left; y is 1: at the bottom
    expected[2, :, 4:12, :8] = 0
    assert torch.equal(cut, expected)
