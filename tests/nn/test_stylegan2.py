"""StyleGAN2's discriminator: its layers by hand, what looks across a batch and what does not."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from countermark.core.errors import UsageError
from countermark.core.seeds import generator
from countermark.nn.modulation import demodulation, modulated
from countermark.nn.resampling import KERNEL
from countermark.nn.stylegan2 import Conv, Discriminator, DiscriminatorBlock, sides, width_at, with_deviations

SMALL = {"size": 16, "channel_base": 128, "channel_max": 16}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def activated(x: Tensor, conv: Conv) -> Tensor:
    return F.leaky_relu(x + conv.bias[:, None, None], 0.2) * math.sqrt(2)


def filtered(x: Tensor, padding: int, stride: int = 1) -> Tensor:
    """Each channel by itself."""
    weight = KERNEL.double().expand(x.shape[1], 1, 4, 4)
    return F.conv2d(x, weight, padding=padding, stride=stride, groups=x.shape[1])


def test_a_convolution_by_hand() -> None:
    conv, x = Conv(3, 5).double(), draw(2, 3, 6, 6)
    conv.bias.data = draw(5, seed=1)
    torch.testing.assert_close(conv(x), activated(F.conv2d(x, conv.weight / math.sqrt(27), padding=1), conv))
    torch.testing.assert_close(conv(x, 0.5), conv(x) * 0.5 / math.sqrt(2))


def test_a_convolution_that_halves_is_filtered_first() -> None:
    conv, x = Conv(3, 5, down=True).double(), draw(2, 3, 6, 6)
    conv.bias.data = draw(5, seed=1)
    expected = activated(F.conv2d(filtered(x, 2), conv.weight / math.sqrt(27), stride=2), conv)
    assert expected.shape == (2, 5, 3, 3)
    torch.testing.assert_close(conv(x), expected)


def test_a_block_is_the_sum_of_two_ways_over_the_root_of_two() -> None:
    block, x = DiscriminatorBlock(3, 5, skip=True).double(), draw(2, 3, 6, 6)
    plain = DiscriminatorBlock(3, 5, skip=False).double()
    assert block.skip is not None
    state = block.state_dict()
    skip = F.conv2d(filtered(x, 1, 2), state.pop("skip.weight") / math.sqrt(3))
    plain.load_state_dict(state)
    torch.testing.assert_close(block(x), (skip + plain(x)) / math.sqrt(2))


def test_deviations_by_hand() -> None:
    """Four samples in two groups, 0 and 2, 1 and 3; two channels, each with a deviation of its own."""
    values = torch.tensor([[1.0, 0.0], [2.0, 5.0], [3.0, 8.0], [2.0, 6.0]])
    x = values[:, :, None, None].expand(-1, -1, 2, 2)
    expected = torch.tensor([[1.0, 4.0], [0.0, 0.5], [1.0, 4.0], [0.0, 0.5]])
    found = with_deviations(x, group=2, num=2)
    assert torch.equal(found[:, :2], x)
    torch.testing.assert_close(found[:, 2:], expected[:, :, None, None].expand(-1, -1, 2, 2), atol=2e-4, rtol=0)
    one = with_deviations(x, group=2, num=1)
    torch.testing.assert_close(one[:, 2:].mean((1, 2, 3)), expected.mean(1), atol=2e-4, rtol=0)


@pytest.mark.parametrize(("num", "group", "size"), [(8, 4, 4), (6, 4, 3), (5, 4, 1), (3, 4, 3), (7, 2**16, 7)])
def test_groups_are_as_large_as_divides_the_batch(num: int, group: int, size: int) -> None:
    x = draw(num, 2, 1, 1)
    groups = x.view(size, num // size, 2)
    expected = (groups - groups.mean(0)).square().mean(0).sqrt().mean(1).repeat(size)
    torch.testing.assert_close(with_deviations(x, group, 1)[:, 2, 0, 0], expected, atol=2e-4, rtol=0)


def test_logits_look_at_their_group_only() -> None:
    torch.manual_seed(0)
    D = Discriminator(**SMALL, group=2).double()
    x = draw(4, 3, 16, 16)
    changed = x.clone()
    changed[0] += 1
    moved = (D(x) - D(changed)).abs() > 1e-9
    assert moved.tolist() == [True, False, True, False]


def test_without_deviations_logits_are_of_one_picture() -> None:
    torch.manual_seed(0)
    D = Discriminator(**SMALL, num_deviations=0).double()
    x = draw(4, 3, 16, 16)
    torch.testing.assert_close(D(x)[2:3], D(x[2:3]))


@pytest.mark.parametrize("architecture", ["resnet", "orig"])
def test_classes_are_projected(architecture: str) -> None:
    torch.manual_seed(0)
    D = Discriminator(**SMALL, num_classes=3, architecture=architecture, num_cmap=7, num_embed=5)  # type: ignore[arg-type]
    assert ("b8.skip.weight" in D.state_dict()) == (architecture == "resnet")
    assert D.mapping is not None
    x, c = draw(4, 3, 16, 16).float(), torch.eye(3)[[0, 1, 2, 0]]
    features = {}
    D.b4.register_forward_hook(lambda module, given, out: features.update(out=out))
    logits = D(x, c)
    assert D.mapping(None, c).shape == features["out"].shape == (4, 7)
    torch.testing.assert_close(logits, (features["out"] * D.mapping(None, c)).sum(1) / math.sqrt(7))
    assert (D(x, c.roll(1, 0)) - logits).abs().max() > 1e-3


def test_widths() -> None:
    assert sides(32) == [4, 8, 16, 32]
    assert [width_at(side, 16384, 512) for side in (256, 64, 32, 4)] == [64, 256, 512, 512]
    for size in (0, 2, 12, 48):
        with pytest.raises(UsageError, match=f"size: {size}"):
            sides(size)
    with pytest.raises(UsageError, match="num_deviations: 3 does not divide 16"):
        Discriminator(**SMALL, num_deviations=3)


def test_modulation_is_that_of_weights_of_each_sample_s_own() -> None:
    x, weight, styles = draw(3, 4, 5, 5), draw(6, 4, 3, 3, seed=1), draw(3, 4, seed=2)
    ours = F.conv2d(modulated(x, styles), weight, padding=1) * demodulation(weight, styles)[:, :, None, None]
    for n in range(3):
        own = weight * styles[n][None, :, None, None]
        own = own / own.square().sum((1, 2, 3), keepdim=True).sqrt()
        torch.testing.assert_close(ours[n : n + 1], F.conv2d(x[n : n + 1], own, padding=1))
