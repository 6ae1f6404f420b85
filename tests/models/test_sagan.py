"""SAGAN: self-attention where the paper has it, spectral normalisation everywhere, and its recipe."""

import dataclasses
from itertools import pairwise

import pytest
import torch

from countermark.core.errors import UsageError
from countermark.models.image.sagan import SPEC, build
from countermark.nn.attention import SelfAttention
from countermark.nn.spectral import Embedding, SpectralNorm


def _conv(num_in: int, num_out: int, kernel: int = 3) -> int:
    return num_in * num_out * kernel**2 + num_out


def _attention(channels: int) -> int:
    return 2 * channels * (channels // 8) + 2 * channels * (channels // 2) + 1


def test_parameter_counts_by_hand() -> None:
    widths = (1024, 1024, 512, 256, 128, 64)
    G = (128 + 1) * 16 * 1024 + 2 * 64 + _conv(64, 3) + _attention(256)
    for a, b in pairwise(widths):
        G += _conv(a, b) + _conv(b, b) + _conv(a, b, 1) + 2 * 1000 * (a + b)
    down = (3, *widths[::-1])
    D = 1024 + 1 + 1000 * 1024 + _attention(128)
    for a, b in pairwise(down):
        D += _conv(a, b) + _conv(b, b) + (_conv(a, b, 1) if a != b else 0)
    with torch.device("meta"):
        networks = build(SPEC.presets["imagenet128"])
    assert [sum(p.numel() for p in networks[name].parameters()) for name in "GD"] == [G, D]


def test_attention_sits_at_32_px() -> None:
    with torch.device("meta"):
        networks = build(SPEC.presets["imagenet128"])
        sides: list[int] = []
        for network in networks.values():
            for module in network.modules():
                if isinstance(module, SelfAttention):
                    module.register_forward_hook(lambda module, args, out: sides.append(out.shape[-1]))
        c = torch.zeros(1, 1000)
        networks["D"](networks["G"](torch.zeros(1, 128), c), c)
    assert sides == [32, 32]


@pytest.mark.parametrize("name", ["G", "D"])
def test_every_layer_is_normalised_but_the_gains_of_classes(name: str) -> None:
    network = build(SPEC.presets["tiny"])[name]
    gains = {f"{key}.weight" for key, module in network.named_modules() if isinstance(module, Embedding)}
    normalised = {
        f"{key.removesuffix('.spectral')}.weight"
        for key, module in network.named_modules()
        if isinstance(module, SpectralNorm)
    }
    matrices = {key for key, p in network.named_parameters() if p.ndim > 1}
    assert normalised == (matrices - gains if name == "G" else matrices)


def test_recipe_of_the_paper() -> None:
    paper = SPEC.presets["imagenet128"]
    d_phase, g_phase = SPEC.phases(paper)
    assert (d_phase.interval, g_phase.interval) == (1, 1)
    assert d_phase.optimiser.options(0) == {"lr": 4e-4, "betas": (0.0, 0.9)}
    assert g_phase.optimiser.options(0) == {"lr": 1e-4, "betas": (0.0, 0.9)}
    assert paper.batch == 256


@pytest.mark.parametrize("preset", ["size32", "size64"])
def test_presets_for_a_cpu_have_about_a_million_parameters(preset: str) -> None:
    with torch.device("meta"):
        networks = build(SPEC.presets[preset])
    assert 0.8e6 < sum(p.numel() for network in networks.values() for p in network.parameters()) < 1.2e6


@pytest.mark.parametrize("other", [{"attention_g": (8, 16)}, {"attention_d": (8,)}])
def test_refuses_attention_at_sides_that_no_block_has(other: dict) -> None:
    with pytest.raises(UsageError, match=r"sagan: attention_.=\d+ is no block's side; choose from [48]"):
        build(dataclasses.replace(SPEC.presets["tiny"], **other))
