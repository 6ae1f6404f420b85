"""StyleGAN2: layers against weights of each sample's own, regularisers in closed form, counts of parameters."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from countermark.core.errors import UsageError
from countermark.core.seeds import generator
from countermark.core.spec import Adam, Step
from countermark.models.image.stylegan2 import (
    SPEC,
    Generator,
    PathLength,
    StyledConv,
    ToImage,
    build,
    path_length_step,
    phases,
)
from countermark.nn.resampling import KERNEL
from countermark.nn.style import W_AVG_BETA

TINY = SPEC.presets["tiny"]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("preset", "num_g", "num_d"),
    [
        ("ffhq1024", 30_370_060, 29_012_513),
        ("paper256", 24_767_458, 24_001_089),
        ("ffhq256", 30_034_338, 28_864_129),
        ("cifar10", 20_215_315, 23_089_664),
    ],
)
def test_parameters_of_the_papers(preset: str, num_g: int, num_d: int) -> None:
    with torch.device("meta"):
        networks = build(SPEC.presets[preset])
    assert (count(networks["G"]), count(networks["D"])) == (num_g, num_d)


@pytest.mark.parametrize("preset", ["size32", "size64"])
def test_light_presets_are_light(preset: str) -> None:
    with torch.device("meta"):
        networks = build(SPEC.presets[preset])
    assert 1e6 < count(networks["G"]) < 2e6
    assert 1e6 < count(networks["D"]) < 2e6


def convolved(x: Tensor, weight: Tensor, up: bool) -> Tensor:
    """One picture [1,C,H,W]: convolution, or zeros between pixels, convolution (not correlation), low-pass filter."""
    if not up:
        return F.conv2d(x, weight, padding=1)
    height, width = x.shape[2:]
    spread = x.new_zeros(1, x.shape[1], 2 * height - 1, 2 * width - 1)
    spread[..., ::2, ::2] = x
    full = F.conv2d(F.pad(spread, (2, 2, 2, 2)), weight.flip(2, 3))
    rows = [F.conv2d(F.pad(channel, (1, 1, 1, 1)), 4 * KERNEL.double()[None, None]) for channel in full.split(1, 1)]
    return torch.cat(rows, 1)


@pytest.mark.parametrize("up", [False, True])
def test_a_styled_convolution_has_weights_of_each_sample_s_own(up: bool) -> None:
    torch.manual_seed(0)
    size = 10 if up else 5
    layer = StyledConv(6, 4, size, 8, up=up).double().eval()
    nn.init.normal_(layer.bias)
    nn.init.constant_(layer.noise_strength, 0.7)
    x, w = draw(3, 6, 5, 5), draw(3, 8, seed=1)
    styles = layer.affine(w)
    rows = []
    for n in range(3):
        weight = layer.weight * styles[n][None, :, None, None]
        weight = weight / weight.square().sum((1, 2, 3), keepdim=True).add(1e-8).sqrt()
        before = convolved(x[n : n + 1], weight, up) + 0.7 * layer.noise_const + layer.bias[:, None, None]
        rows.append(F.leaky_relu(before, 0.2) * math.sqrt(2))
    torch.testing.assert_close(layer(x, w), torch.cat(rows))


def test_what_adds_to_the_picture_is_modulated_and_not_demodulated() -> None:
    torch.manual_seed(0)
    layer = ToImage(6, 3, 8).double()
    nn.init.normal_(layer.bias)
    x, w = draw(2, 6, 4, 4), draw(2, 8, seed=1)
    weights = layer.weight[None, ..., 0, 0] * layer.affine(w)[:, None] / math.sqrt(6)
    expected = torch.einsum("noi,nihw->nohw", weights, x) + layer.bias[:, None, None]
    torch.testing.assert_close(layer(x, w), expected)


@pytest.mark.parametrize("up", [False, True])
def test_second_derivatives_of_a_styled_convolution(up: bool) -> None:
    torch.manual_seed(0)
    layer = StyledConv(2, 2, 6 if up else 3, 3, up=up).double().eval()
    nn.init.constant_(layer.noise_strength, 0.7)
    x, w = draw(2, 2, 3, 3).requires_grad_(), draw(2, 3, seed=1).requires_grad_()
    assert torch.autograd.gradgradcheck(layer, (x, w))


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    made = build(TINY)
    for block in made["G"].synthesis.children():  # type: ignore[union-attr]
        nn.init.constant_(block.conv1.noise_strength, 0.5)
    return made


def test_noise_is_constant_in_evaluation_and_drawn_in_training() -> None:
    G: Generator = networks()["G"].eval()  # type: ignore[assignment]
    z, c = draw(6, TINY.num_z).float(), torch.eye(10)[:6]  # type: ignore[attr-defined]
    once = G(z, c)
    assert torch.equal(once, G(z, c))
    torch.testing.assert_close(once[4:5], G(z[4:5], c[4:5]), atol=1e-5, rtol=0)
    G.train()
    G.mixing = 0.0
    torch.manual_seed(1)
    drawn, other = G(z, c), G(z, c)
    assert (drawn - other).abs().mean() > 0.01
    torch.manual_seed(1)
    assert torch.equal(drawn, G(z, c))
    assert (drawn[0] - G(z[:1].expand(6, -1), c[:1].expand(6, -1))[3]).abs().mean() > 0.01  # each its own noise


def test_the_noise_strength_scales_what_is_added() -> None:
    layer = StyledConv(2, 3, 64, 4).train()
    nn.init.zeros_(layer.weight)
    nn.init.constant_(layer.noise_strength, 0.5)
    torch.manual_seed(0)
    y = layer(torch.zeros(8, 2, 64, 64), torch.zeros(8, 4))
    assert torch.equal(y[:, 0], y[:, 2])  # one noise for all channels
    before = torch.where(y > 0, y, y / 0.2) / math.sqrt(2)
    assert before.std().item() == pytest.approx(0.5, rel=0.02)


def test_mixed_pictures_take_their_later_layers_from_another_w() -> None:
    torch.manual_seed(0)
    G = Generator(size=32, channels=1, channel_base=128, channel_max=8, num_z=8, w_dim=8, num_mapping_layers=1)
    z = draw(500, 8).float()
    own = G.eval().mapping(z)
    G.train()
    assert torch.equal(G.styles(z), own)
    for mixing in (1.0, 0.4):
        G.mixing = mixing
        ws = G.styles(z)
        first_others = (ws == own).all(2).sum(1)  # 8 where nothing is mixed
        assert torch.equal(ws[:, 0], own[:, 0])
        assert torch.equal(ws[range(500), first_others - 1], own[:, 0])
        others = ws[first_others < 8, -1]
        assert torch.equal(ws[first_others < 8][range(len(others)), first_others[first_others < 8]], others)
        assert len(others) / 500 == pytest.approx(mixing, abs=0.08)
        assert set(range(1, 8)) <= set(first_others.tolist())
    assert torch.equal(G.eval().styles(z), own)


def test_the_mean_of_w_is_learnt_in_training_only() -> None:
    G: Generator = networks()["G"].eval()  # type: ignore[assignment]
    z, c = draw(6, TINY.num_z).float(), torch.eye(10)[:6]  # type: ignore[attr-defined]
    G(z, c)
    assert not G.mapping.w_avg.any()
    G.train()
    G.mixing = 0.0
    ws = G.styles(z, c)
    torch.testing.assert_close(G.mapping.w_avg, 0.002 * ws[:, 0].mean(0))


def test_the_penalty_on_path_lengths_by_hand() -> None:
    module = PathLength()
    lengths = torch.tensor([1.0, 3.0], requires_grad=True)
    penalty = module(lengths)
    assert module.mean.item() == pytest.approx(0.02)
    torch.testing.assert_close(penalty, torch.tensor([0.98, 2.98]).square())
    penalty.mean().backward()
    torch.testing.assert_close(lengths.grad, torch.tensor([0.98, 2.98]))  # the mean is a constant
    module(lengths)
    assert module.mean.item() == pytest.approx(0.02 * 0.99 + 0.02)


class LinearSynthesis(nn.Module):
    """Pictures [N,1,2,2] that are the factor times the sum of all ws [N,num_ws,4]."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(3.0))

    def forward(self, ws: Tensor) -> Tensor:
        return self.factor * ws.sum(1).view(-1, 1, 2, 2)


def test_the_path_length_s_step_on_a_linear_synthesis() -> None:
    """The Jacobian of every layer is 3 I, so lengths are 3 |y| / sqrt(4), y being four standard normal numbers."""
    torch.manual_seed(0)
    G = Generator(size=8, channels=1, channel_base=64, channel_max=8, num_z=4, w_dim=4, num_mapping_layers=1)
    G.synthesis = LinearSynthesis()
    step = Step({"G": G, "path_length": PathLength()}, torch.zeros(6, 1, 8, 8), None, TINY, 4, 0, generator(0))
    terms = path_length_step(step, weight=2.0)
    stream = generator(0)
    torch.randn(6, 4, generator=stream)  # z
    lengths = 3 * torch.randn(3, 1, 2, 2, generator=stream).flatten(1).norm(dim=1) / 2
    torch.testing.assert_close(terms["lengths"], lengths)
    penalty = (lengths - 0.01 * lengths.mean()).square()
    torch.testing.assert_close(terms["loss"], 4 * 2 * penalty.mean())
    terms["loss"].backward()
    expected = 4 * 2 * (2 * (lengths - 0.01 * lengths.mean()) * lengths / 3).mean()
    torch.testing.assert_close(G.synthesis.factor.grad, expected)


def test_the_lazy_schedule() -> None:
    settings = dataclasses.replace(TINY, lr=0.0025, batch=32)
    made = {phase.label: phase for phase in phases(settings)}
    assert {label: (phase.network, phase.interval) for label, phase in made.items()} == {
        "D": ("D", 1),
        "D_reg": ("D", 16),
        "G": ("G", 1),
        "G_reg": ("G", 4),
    }
    for network, interval in (("D", 16), ("G", 4)):
        adam = made[network].optimiser
        assert adam == made[f"{network}_reg"].optimiser  # one state for both
        assert isinstance(adam, Adam)
        share = interval / (interval + 1)
        assert adam.lr == pytest.approx(0.0025 * share)
        assert (adam.beta1, adam.beta2) == (0, pytest.approx(0.99**share))
    assert "G_reg" not in {phase.label for phase in phases(dataclasses.replace(settings, path_length=0.0))}


@pytest.mark.parametrize(("gamma", "expected"), [(None, 0.0002 * 64 / 32), (0.5, 0.5), (0.0, 0.0)])
def test_gamma_follows_size_and_batch_unless_it_is_given(gamma: float | None, expected: float) -> None:
    r1 = phases(dataclasses.replace(TINY, gamma=gamma, batch=32))[1]
    torch.manual_seed(0)
    step = Step(build(TINY), torch.rand(4, 1, 8, 8), torch.eye(10)[:4], TINY, 16, 0, generator(0))
    terms = r1.function(step)
    torch.testing.assert_close(terms["loss"], 16 * expected / 2 * terms["r1"].mean())


def test_r1_is_of_the_pictures_before_augmentation() -> None:
    """What D sees is the picture times 3 here, so that the gradient in the picture is three times D's own."""

    class Tripled(nn.Module):
        def forward(self, x: Tensor, nimg: int, generator: torch.Generator) -> Tensor:
            return 3 * x

    r1 = phases(TINY)[1]
    x, c = torch.rand(4, 1, 8, 8, generator=generator(0)), torch.eye(10)[:4]
    made = networks()
    terms = r1.function(Step({**made, "augment": Tripled()}, x, c, TINY, 16, 0, generator(0)))
    seen = (3 * x).requires_grad_()
    (gradient,) = torch.autograd.grad(made["D"](seen, c).sum(), seen)
    torch.testing.assert_close(terms["r1"], 9 * gradient.square().sum((1, 2, 3)))


def test_bfloat16_is_near_float32() -> None:
    made = {name: network.eval() for name, network in networks().items()}
    z, c = draw(4, TINY.num_z).float(), torch.eye(10)[:4]  # type: ignore[attr-defined]
    exact = made["G"](z, c)
    with torch.autocast("cpu", torch.bfloat16):
        near = made["G"](z, c)
        logits = made["D"](near, c)
    assert (near.dtype, logits.dtype) == (torch.float32, torch.float32)
    assert (near - exact).abs().mean() < 0.02 * exact.std()
    assert (logits - made["D"](exact, c)).abs().max() < 0.1


@pytest.mark.parametrize(("name", "value"), [("size", 24), ("size", 4), ("size", 2), ("channel_base", 7)])
def test_shapes_that_cannot_be(name: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"{name}: {value}"):
        build(dataclasses.replace(TINY, **{name: value}))


def test_the_mean_of_w_learns_from_the_own_codes_alone() -> None:
    torch.manual_seed(0)
    G = SPEC.build(dataclasses.replace(SPEC.presets["tiny"], num_classes=0, mixing=1.0))["G"]
    z = torch.randn(4, 16)
    w = G.mapping.unlearnt(z)
    G.styles(z)
    torch.testing.assert_close(G.mapping.w_avg, (1 - W_AVG_BETA) * w.mean(0))
