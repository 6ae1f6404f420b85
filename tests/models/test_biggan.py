"""BigGAN and BigGAN-deep: latents and classes on their way into G, the average, the regularisation, the recipe."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from countermark.core.errors import UsageError
from countermark.core.seeds import generator
from countermark.core.spec import Spec, Step, at
from countermark.models.image import biggan, biggan_deep
from countermark.nn.normalisation import ConditionalBatchNorm
from countermark.nn.residual import Generator, UpBlock
from countermark.nn.spectral import SpectralNorm
from countermark.training.run import settings_from_json, settings_to_json
from countermark.training.trained import BATCH, MEASURED, NUM_MEASURED, Trained

both = pytest.mark.parametrize("spec", [biggan.SPEC, biggan_deep.SPEC], ids=lambda spec: spec.name)


def _conditions(G: nn.Module, z: Tensor, c: Tensor | None) -> list[Tensor | None]:
    """What each block is given beside its picture."""
    seen: list[Tensor | None] = []
    for stage in G.blocks:
        stage[0].register_forward_pre_hook(lambda module, args: seen.append(args[1]))
    G(z, c)
    return seen


@pytest.mark.parametrize("num_classes", [0, 3])
def test_every_block_sees_the_class_and_its_chunk_of_z(num_classes: int) -> None:
    torch.manual_seed(0)
    G = Generator(
        num_z=6, widths=(8, 8, 8), hierarchical=True, num_embed=4, num_classes=num_classes, channels=1, eps=1e-6
    )
    z, c = torch.randn(2, 6), torch.eye(3)[[2, 1]] if num_classes else None
    first: list[Tensor] = []
    G.linear.register_forward_pre_hook(lambda module, args: first.append(args[0]))
    seen = _conditions(G, z, c)
    embedded = G.shared.weight[[2, 1]] if num_classes else z[:, :0]
    assert torch.equal(first[0], z[:, :2])
    assert torch.equal(seen[0], torch.cat([embedded, z[:, 2:4]], 1))
    assert torch.equal(seen[1], torch.cat([embedded, z[:, 4:]], 1))


def test_without_chunks_blocks_see_the_class_alone_or_nothing() -> None:
    shape = {"num_z": 6, "widths": (8, 8), "channels": 1, "eps": 1e-6}
    z, c = torch.randn(2, 6), torch.eye(3)[[2, 1]]
    shared = Generator(**shape, num_embed=4, num_classes=3)
    assert torch.equal(_conditions(shared, z, c)[0], shared.shared.weight[[2, 1]])
    own = Generator(**shape, num_classes=3)
    assert torch.equal(_conditions(own, z, c)[0], c)
    assert own.blocks[0][0].bn1.gain.weight.shape == (3, 8)
    plain = Generator(**shape)
    assert _conditions(plain, z, None) == [None]
    assert isinstance(plain.blocks[0][0].bn1, nn.BatchNorm2d)


@pytest.mark.parametrize("num_classes", [0, 3])
def test_every_block_of_the_deep_one_sees_all_of_z(num_classes: int) -> None:
    torch.manual_seed(0)
    G = biggan_deep.Generator(num_z=6, widths=(8, 8, 8), num_embed=4, num_classes=num_classes, channels=1)
    z, c = torch.randn(2, 6), torch.eye(3)[[2, 1]] if num_classes else None
    seen = _conditions(G, z, c)
    expected = torch.cat([G.shared.weight[[2, 1]], z], 1) if num_classes else z
    assert len(seen) == 4
    assert all(torch.equal(condition, expected) for condition in seen)


def test_the_gain_is_one_plus_a_linear_map_of_the_condition() -> None:
    torch.manual_seed(0)
    G = Generator(num_z=6, widths=(8, 8), hierarchical=True, num_embed=4, num_classes=3, channels=1, eps=1e-6).eval()
    norm, y, x = G.blocks[0][0].bn1, torch.randn(2, 7), torch.randn(2, 8, 4, 4)
    assert isinstance(norm, ConditionalBatchNorm)
    with torch.no_grad():
        for layer in (norm.gain, norm.bias):
            layer.weight.zero_()
        norm.gain.weight[5, 6] = norm.bias.weight[2, 0] = 1.0
    for _ in range(2):  # W has one entry, so sigma is 1 once u points at its row
        norm.train()(x, y)
    norm.norm.reset_running_stats()
    expected = x / math.sqrt(1 + 1e-5)
    expected[:, 5] *= 1 + y[:, 6, None, None]
    expected[:, 2] += y[:, 0, None, None]
    torch.testing.assert_close(norm.eval()(x, y), expected)


@both
def test_all_of_g_is_normalised_spectrally_but_the_shared_embedding(spec: Spec) -> None:
    networks = spec.build(spec.presets["tiny"])
    for name, network in networks.items():
        normalised = {key for key, module in network.named_modules() if isinstance(module, SpectralNorm)}
        matrices = {key.removesuffix(".weight") for key, p in network.named_parameters() if p.ndim > 1}
        assert {key.removesuffix(".spectral") for key in normalised} == matrices - {"shared"}
        assert ("shared" in matrices) == (name == "G")
        assert all(module.eps == 1e-6 for module in network.modules() if isinstance(module, SpectralNorm))


@both
def test_the_orthogonal_regularisation_leaves_the_shared_embedding_alone(spec: Spec) -> None:
    settings = spec.presets["tiny"]
    torch.manual_seed(0)
    networks = {name: network.eval() for name, network in spec.build(settings).items()}
    G, x, c = networks["G"], torch.zeros(4, 1, 8, 8), torch.eye(10)[:4]
    with torch.no_grad():
        for parameter in G.parameters():  # as built it is orthogonal
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    gradients, losses = [], []
    for strength in (0.0, 3.0):
        step = Step(networks, x, c, settings, spec.num_z(settings), 0, generator(0))
        phase = spec.phases(dataclasses.replace(settings, orthogonal=strength))[1]  # type: ignore[call-arg]
        terms = phase.function(step)
        losses.append(terms["loss"])
        gradients.append(torch.autograd.grad(terms["loss"], list(G.parameters())))
    named = dict(G.named_parameters())
    penalty = 0.0
    for key, without, having in zip(named, *gradients, strict=True):
        weight = named[key].detach()
        if weight.ndim < 2 or key == "shared.weight":
            assert torch.equal(without, having)
        else:
            W = weight.flatten(1)
            off = W @ W.T * (1 - torch.eye(len(W)))
            penalty += off.square().sum()
            torch.testing.assert_close(having - without, (3 * 4 * off @ W).view_as(weight), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(losses[1] - losses[0], 3 * penalty, rtol=1e-4, atol=1e-3)


def test_the_average_of_the_paper_starts_late_and_counts_steps_of_g() -> None:
    """.9999 a step of G, which is two batches of 2,048 apart, from step 20,000 on."""
    paper = biggan.SPEC.presets["imagenet128"]
    nimg = 2 * 2048
    assert at(paper.ema_halflife_nimg, 20_000 * nimg - 1) == 0
    halflife_nimg = at(paper.ema_halflife_nimg, 20_000 * nimg)
    assert 0.5 ** (nimg / halflife_nimg) == pytest.approx(0.9999, rel=1e-9)
    assert biggan.SPEC.average_buffers
    assert biggan_deep.SPEC.average_buffers


@pytest.mark.parametrize(
    ("preset", "lr", "steps", "batch"), [("imagenet128", (5e-5, 2e-4), 2, 2048), ("cifar10", (2e-4, 2e-4), 4, 50)]
)
def test_recipes(preset: str, lr: tuple[float, float], steps: int, batch: int) -> None:
    settings = biggan.SPEC.presets[preset]
    d_phase, g_phase = biggan.SPEC.phases(settings)
    assert (d_phase.interval, g_phase.interval) == (1, steps)
    assert g_phase.optimiser.options(0) == {"lr": lr[0], "betas": (0.0, 0.999)}
    assert d_phase.optimiser.options(0) == {"lr": lr[1], "betas": (0.0, 0.999)}
    assert settings.batch == batch


@both
def test_weights_start_orthogonal_and_biases_at_nothing(spec: Spec) -> None:
    torch.manual_seed(0)
    for network in spec.build(spec.presets["tiny"]).values():
        for key, parameter in network.named_parameters():
            if parameter.ndim > 1:
                W = parameter.detach().flatten(1)
                gram = W @ W.T if len(W) <= W.shape[1] else W.T @ W
                torch.testing.assert_close(gram, torch.eye(len(gram)), rtol=0, atol=1e-5)
            elif key.endswith("bias"):
                assert not parameter.any()


def test_bottlenecks_by_hand() -> None:
    """With the last convolution at 0, G's blocks drop channels and repeat pixels; D's take means and add channels."""
    up = biggan_deep.UpBottleneck(8, 4, lambda channels: ConditionalBatchNorm(channels, _linear), up=True)
    down = biggan_deep.DownBottleneck(4, 8, down=True)
    for block in (up, down):
        block.conv4 = nn.Conv2d(2, len(block.conv4.weight), 1)
        nn.init.zeros_(block.conv4.weight)
        nn.init.zeros_(block.conv4.bias)
    x = torch.randn(1, 8, 4, 4)
    repeated = x[:, :4].repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(up(x, torch.randn(1, 3)), repeated)
    means = x[:, :4].unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    down.eval()
    torch.testing.assert_close(down(x[:, :4]), torch.cat([means, down.conv_sc(means)], 1))


def _linear(channels: int) -> nn.Module:
    return nn.Linear(3, channels, bias=False)


@both
def test_standing_statistics_are_those_of_its_own_pictures(spec: Spec) -> None:
    torch.manual_seed(0)
    settings = spec.presets["tiny"]
    G = spec.build(settings)["G"].eval().requires_grad_(False)
    trained = Trained(spec, settings, {}, {"G": G}, 0)
    before = trained.sample([1, 2])
    standing = trained.with_standing_statistics(num_batches=2)
    assert torch.equal(trained.sample([1, 2]), before)
    assert not torch.equal(standing.sample([1, 2]), before)
    assert torch.equal(standing.sample([1, 2]), trained.with_standing_statistics(num_batches=2).sample([1, 2]))
    truncated = trained.with_standing_statistics(truncation=0.1, num_batches=2)
    assert not torch.equal(standing.sample([1, 2]), truncated.sample([1, 2]))
    seen: list[Tensor] = []
    norm = G.blocks[0][0].bn1.norm  # what comes before it has no statistics
    norm.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    first = NUM_MEASURED * (1 + len(MEASURED))
    trained.sample(range(first, first + 2 * BATCH))
    means = torch.stack([x.mean((0, 2, 3)) for x in seen])
    torch.testing.assert_close(standing.generator.blocks[0][0].bn1.norm.running_mean, means.mean(0))


@pytest.mark.parametrize("other", [{"num_z": 15}, {"num_embed": 0}])
def test_refuses_chunks_that_cannot_be(other: dict) -> None:
    with pytest.raises(UsageError, match=r"biggan: hierarchical=true .* or give hierarchical=false"):
        biggan.build(dataclasses.replace(biggan.SPEC.presets["tiny"], **other))


@both
@pytest.mark.parametrize("other", [{"size": 16}, {"widths_g": (8,)}, {"widths_d": (8, 8, 8)}])
def test_refuses_widths_that_do_not_fit(spec: Spec, other: dict) -> None:
    with pytest.raises(UsageError, match=rf"{spec.name}: size .* give 2 of each for 8 px"):
        spec.build(dataclasses.replace(spec.presets["tiny"], **other))


def test_a_stranger_s_settings_cannot_ask_for_any_depth() -> None:
    settings = settings_to_json(biggan_deep.SPEC.presets["tiny"])
    assert settings_from_json(biggan_deep.BigGANDeepSettings, settings) == biggan_deep.SPEC.presets["tiny"]
    with pytest.raises(TypeError, match="depth_g"):
        settings_from_json(biggan_deep.BigGANDeepSettings, {**settings, "depth_g": 100_000})


@both
@pytest.mark.parametrize("preset", ["size32", "size64"])
def test_presets_for_a_cpu_have_about_a_million_parameters(spec: Spec, preset: str) -> None:
    with torch.device("meta"):
        networks = spec.build(spec.presets[preset])
    assert 0.8e6 < sum(p.numel() for network in networks.values() for p in network.parameters()) < 1.2e6


def test_the_first_normalisation_comes_before_everything() -> None:
    """A block normalises its input before its first convolution: shifting the input changes the shortcut alone."""
    torch.manual_seed(0)
    block, x = UpBlock(4, 4, lambda channels: ConditionalBatchNorm(channels, _linear), None), torch.randn(3, 4, 4, 4)
    y = torch.randn(3, 3)
    shift = block(x + 2, y) - block(x, y)
    torch.testing.assert_close(shift, (2 * block.conv_sc.weight.sum((1, 2, 3)))[None, :, None, None].expand_as(shift))
