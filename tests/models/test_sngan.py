"""SNGAN's discriminator by hand, its recipe, and what it must do with and without classes."""

import dataclasses

import pytest
import torch
from torch import nn

from countermark.core.errors import UsageError
from countermark.models.image.sngan import SPEC, build
from countermark.nn.residual import Discriminator, DownBlock, UpBlock, by_class, sides_down
from countermark.nn.spectral import SpectralNorm

TINY = SPEC.presets["tiny"]


@pytest.mark.parametrize("num_classes", [0, 3])
def test_logits_by_hand(num_classes: int) -> None:
    """w . h / sigma + b + e . h / sigma' with h the sum over pixels of the features after ReLU."""
    torch.manual_seed(0)
    D = Discriminator(widths=(8, 16), num_classes=num_classes, eps=1e-12)
    x, classes = torch.randn(3, 3, 8, 8), torch.tensor([2, 0, 2])
    c = torch.eye(3)[classes] if num_classes else None
    for _ in range(200):
        D(x, c)
    D.eval()
    h = D.features(x).clamp(min=0).flatten(2).sum(2)
    expected = h @ (D.linear.weight[0] / D.linear.weight.norm()) + D.linear.bias
    if num_classes:
        rows = D.embed.weight / torch.linalg.svdvals(D.embed.weight)[0]
        expected = expected + (rows[classes] * h).sum(1)
    torch.testing.assert_close(D(x, c), expected)


def test_blocks_by_hand() -> None:
    """With residual convolutions at 0 what is left is the shortcut: a 1x1 convolution of the resampled input."""
    x, y = torch.randn(1, 2, 4, 4), torch.eye(3)[:1]
    up = UpBlock(2, 3, by_class(3), None)
    down = DownBlock(2, 3, down=True, first=False, wide=False, eps=None)
    for block in (up, down):
        nn.init.zeros_(block.conv2.weight)
        nn.init.zeros_(block.conv2.bias)
    weight, bias = up.conv_sc.weight[:, :, 0, 0], up.conv_sc.bias
    expected = torch.einsum("oc,nchw->nohw", weight, x).add(bias[:, None, None])
    torch.testing.assert_close(up(x, y), expected.repeat_interleave(2, 2).repeat_interleave(2, 3))
    weight, bias = down.conv_sc.weight[:, :, 0, 0], down.conv_sc.bias
    means = x.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    torch.testing.assert_close(down(x), torch.einsum("oc,nchw->nohw", weight, means).add(bias[:, None, None]))


def test_the_second_convolution_widens() -> None:
    D = build(SPEC.presets["size32"])["D"]
    shapes = [tuple(stage[0].conv1.weight.shape[:2]) for stage in D.blocks]
    assert shapes == [(32, 3), (32, 32), (64, 64), (96, 96)]
    assert [isinstance(stage[0].conv_sc, nn.Identity) for stage in D.blocks] == [False, False, False, True]


@pytest.mark.parametrize(
    ("num_doublings", "sides"),
    [
        (1, [8, 4, 4]),
        (2, [16, 8, 8, 8]),
        (3, [32, 16, 8, 8, 8]),
        (4, [64, 32, 16, 8, 4, 4]),
        (5, [128, 64, 32, 16, 8, 4, 4]),
    ],
)
def test_the_discriminator_s_sides(num_doublings: int, sides: list[int]) -> None:
    assert sides_down(num_doublings) == sides
    D = Discriminator(widths=(8,) * (num_doublings + 1))
    found: list[int] = []
    for stage in D.blocks:
        stage.register_forward_hook(lambda module, args, out: found.append(out.shape[-1]))
    D(torch.zeros(1, 3, sides[0], sides[0]))
    assert found == sides[1:]


def test_only_the_discriminator_is_normalised_spectrally() -> None:
    networks = build(TINY)
    normalised = {
        name: {key for key, module in network.named_modules() if isinstance(module, SpectralNorm)}
        for name, network in networks.items()
    }
    assert normalised["G"] == set()
    weights = {f"{key.removesuffix('.weight')}.spectral" for key, p in networks["D"].named_parameters() if p.ndim > 1}
    assert normalised["D"] == weights


def test_the_discriminator_judges_each_picture_alone() -> None:
    """What lets reals and fakes pass as one batch."""
    torch.manual_seed(0)
    D = build(TINY)["D"].eval()
    x, c = torch.randn(4, 1, 8, 8), torch.eye(10)[:4]
    torch.testing.assert_close(D(x, c), torch.cat([D(x[i : i + 1], c[i : i + 1]) for i in range(4)]))


def test_recipe_of_the_paper() -> None:
    cifar = SPEC.presets["cifar10"]
    d_phase, g_phase = SPEC.phases(cifar)
    assert (d_phase.interval, g_phase.interval) == (1, 5)
    for phase in (d_phase, g_phase):
        assert phase.optimiser.options(0) == {"lr": 2e-4, "betas": (0.0, 0.9)}
        assert phase.optimiser.options(cifar.total_nimg // 2)["lr"] == pytest.approx(1e-4)
        assert phase.optimiser.options(cifar.total_nimg)["lr"] == 0
    assert cifar.total_nimg == 16_000_000


@pytest.mark.parametrize("preset", ["size32", "size64"])
def test_presets_for_a_cpu_have_about_a_million_parameters(preset: str) -> None:
    with torch.device("meta"):
        networks = build(SPEC.presets[preset])
    assert 0.8e6 < sum(p.numel() for network in networks.values() for p in network.parameters()) < 1.2e6


@pytest.mark.parametrize("other", [{"size": 16}, {"widths_g": (8,)}, {"widths_d": (8, 8, 8)}])
def test_refuses_widths_that_do_not_fit(other: dict) -> None:
    with pytest.raises(UsageError, match=r"sngan: size .* give 2 of each for 8 px"):
        build(dataclasses.replace(TINY, **other))
