"""DiffAugment's ranges, that each transformation is what it says, and that gradients pass."""

import pytest
import torch
from torch import Tensor

from countermark.core.seeds import generator
from countermark.core.spec import Settings
from countermark.nn.augmentation import augmenting
from countermark.nn.diffaugment import DiffAugment, _cut, _recoloured, _translated


def _pictures(num: int, channels: int = 3, size: int = 16) -> Tensor:
    return torch.randn(num, channels, size, size, generator=generator(0, "x"))


def test_brightness_moves_the_mean_by_up_to_a_half() -> None:
    moved = _recoloured(torch.zeros(2000, 3, 4, 4), generator(0))
    assert torch.equal(moved, moved[:, :1, :1, :1].expand_as(moved))  # of a grey flat picture nothing else is seen
    assert -0.5 <= moved.min() < -0.49
    assert 0.49 < moved.max() <= 0.5


def test_contrast_and_saturation_keep_what_they_turn_around() -> None:
    x = _pictures(500)
    grey = x.mean(1, keepdim=True).expand_as(x)
    ratio = _recoloured(grey, generator(1)).flatten(1).std(1) / grey.flatten(1).std(1)
    assert 0.5 <= ratio.min() < 0.52
    assert 1.48 < ratio.max() <= 1.5


def test_translation_is_by_whole_pixels_and_brings_zeros() -> None:
    x = _pictures(300, 1)
    for before, after in zip(x[:, 0], _translated(x, generator(0))[:, 0], strict=True):
        found = [
            (top, left)
            for top in range(-2, 3)
            for left in range(-2, 3)
            if torch.equal(
                after,
                torch.zeros(20, 20).index_put((torch.arange(2, 18)[:, None], torch.arange(2, 18)), before)[
                    2 + top : 18 + top, 2 + left : 18 + left
                ],
            )
        ]
        assert len(found) == 1
    assert not torch.equal(_translated(x, generator(0)), x)


def test_the_cut_is_a_square_of_half_the_side_or_what_of_it_lies_inside() -> None:
    cut = _cut(torch.ones(2000, 1, 16, 16), generator(0))[:, 0] == 0
    rows, columns = cut.any(2).sum(1), cut.any(1).sum(1)
    assert torch.equal(cut.sum((1, 2)), rows * columns)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 8, 4, 8)


@pytest.mark.parametrize("size", [7, 8, 32])
@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_pass_and_evaluation_does_nothing(size: int, channels: int) -> None:
    x = _pictures(4, channels, size).requires_grad_()
    augment = augmenting(Settings(size=size, channels=channels, augment="diffaugment"))["augment"]
    assert isinstance(augment, DiffAugment)
    seen = augment(x, 0, generator(0))
    (gradient,) = torch.autograd.grad(seen.square().sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert augment.eval()(x, 0, generator(0)) is x
