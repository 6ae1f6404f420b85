"""StyleGAN3's signals, layers and phases by hand, and what it is for: pictures that move with their input."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from countermark.core.errors import UsageError
from countermark.core.seeds import generator as stream
from countermark.core.spec import Step
from countermark.losses.adversarial import non_saturating_g
from countermark.losses.steps import generator_step
from countermark.models.image.stylegan3 import (
    SPEC_R,
    SPEC_T,
    FourierFeatures,
    Layer,
    Signal,
    StyleGAN3Settings,
    ToImage,
    blurred,
    build,
    generator,
    signals,
)
from countermark.nn.alias_free import filtered_leaky_relu, gaussian_blur
from countermark.nn.style import StyleGenerator

SPECS = {"T": SPEC_T, "R": SPEC_R}
TINY = SPEC_T.presets["tiny"]


@pytest.mark.parametrize(("kind", "parameters"), [("T", 22_313_167), ("R", 15_093_151)])
def test_parameters_and_signals_of_the_paper(kind: str, parameters: int) -> None:
    with torch.device("meta"):
        networks = build(SPECS[kind].presets["ffhq1024"])  # type: ignore[arg-type]
    assert sum(p.numel() for p in networks["G"].parameters()) == parameters
    assert sum(p.numel() for p in networks["D"].parameters()) == 29_012_513
    sizes = [36, 36, 52, 52, 84, 148, 148, 276, 276, 532, 1044, 1044, 1044, 1024, 1024]
    widths = [512, 512, 512, 512, 512, 512, 512, 323, 203, 128, 81, 51, 32, 32, 3]
    if kind == "R":
        widths = [1024, 1024, 1024, 1024, 1024, 1024, 1024, 645, 406, 256, 161, 102, 64, 64, 3]
    names = [f"L{i}_{size}_{width}" for i, (size, width) in enumerate(zip(sizes, widths, strict=True))]
    assert networks["G"].synthesis.names == names
    radial = [layer.down_filter.ndim == 2 for layer in networks["G"].modules() if isinstance(layer, Layer)]
    assert radial == [kind == "R"] * 12 + [False] * 2


def test_signals_by_hand() -> None:
    found = signals(
        size=32,
        channels=3,
        channel_base=64,
        channel_max=10,
        num_layers=4,
        num_critical=2,
        first_cutoff=2.0,
        first_stopband=4.0,
        last_stopband_ratio=1.25,
        margin=1,
    )
    assert found[0] == Signal(cutoff=2, half_width=2, rate=8, size=10, channels=10)
    assert (found[1].rate, found[1].size, found[1].channels) == (32, 34, 6)
    assert found[1].cutoff == pytest.approx(2 * math.sqrt(8))
    assert found[1].half_width == pytest.approx(16 - 2 * math.sqrt(8))  # half the rate lies above the stopband
    assert found[2:] == [Signal(16, 4, 32, 34, 2), Signal(16, 4, 32, 32, 2), Signal(16, 4, 32, 32, 3)]


# What it is for.


def _settings(kind: str, **changes: object) -> StyleGAN3Settings:
    """32 px with the paper's margin, few channels, one width of z and w."""
    settings = SPECS[kind].presets["size32"]
    share = 2 if kind == "R" else 1
    few = {"channel_base": 512 * share, "channel_max": 32 * share, "num_z": 32, "w_dim": 32, "margin": 10}
    return dataclasses.replace(settings, **few, **changes)  # type: ignore[arg-type, return-value]


@torch.no_grad()
def _random(kind: str) -> tuple[StyleGenerator, Tensor]:
    """A random generator and ws [2,num_ws,w_dim]."""
    torch.manual_seed(3)
    G = generator(_settings(kind)).eval().requires_grad_(False)
    for parameter in G.parameters():
        parameter += 0.05 * torch.randn(parameter.shape)
    return G, G.mapping(torch.randn(2, 32))


@torch.no_grad()
def _transformed(G: StyleGenerator, ws: Tensor, matrix: Tensor) -> Tensor:
    G.synthesis.input.transform.copy_(matrix)  # type: ignore[union-attr, operator]
    return G.synthesis(ws)


def _translation(x: float, y: float) -> Tensor:
    return torch.tensor([[1.0, 0.0, -x], [0.0, 1.0, -y], [0.0, 0.0, 1.0]])


def _error(ours: Tensor, expected: Tensor) -> float:
    """The root of the mean square difference, in standard deviations."""
    return ((ours - expected).square().mean().sqrt() / expected.std()).item()


@pytest.mark.parametrize(("kind", "allowed"), [("T", 1e-3), ("R", 1e-4)])
@pytest.mark.parametrize(("right", "down"), [(1, 0), (3, 2), (0, 4)])
def test_translations_of_the_input_move_the_picture(kind: str, allowed: float, right: int, down: int) -> None:
    """By whole pixels of the picture, of which two are one sample of the input."""
    G, ws = _random(kind)
    still, moved = G.synthesis(ws), _transformed(G, ws, _translation(right / 32, down / 32))
    assert _error(moved[..., down:, right:], still[..., : 32 - down, : 32 - right]) < allowed
    assert _error(moved, still) > 50 * allowed


def test_quarter_turns_of_the_input_turn_r_s_picture_and_not_t_s() -> None:
    turn = torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    errors = {}
    for kind in "TR":
        G, ws = _random(kind)
        still = G.synthesis(ws)
        errors[kind] = _error(_transformed(G, ws, turn), still.rot90(-1, (2, 3)))
    assert errors["R"] < 1e-5
    assert errors["T"] > 0.1


@pytest.mark.parametrize(
    ("kind", "degrees", "right", "allowed"),
    [("T", 0, 0.5, 2e-3), ("R", 0, 0.5, 3e-3), ("R", 20, 0, 1e-2), ("R", 45, 1.5, 1e-2)],
)
def test_any_motion_of_the_input_moves_the_picture(kind: str, degrees: float, right: float, allowed: float) -> None:
    """Between pixels and at any angle: in a disc, as far as bicubic interpolation can tell."""
    G, ws = _random(kind)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = torch.tensor([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    matrix = turn @ _translation(right / 32, 0)
    still, moved = G.synthesis(ws), _transformed(G, ws, matrix)
    matrix[:2, 2] *= 2  # grid_sample's picture is two wide
    grid = F.affine_grid(matrix[None, :2].expand(2, -1, -1), [2, 3, 32, 32], align_corners=False)
    expected = F.grid_sample(still, grid, mode="bicubic", align_corners=False)
    places = (torch.arange(32) + 0.5) / 16 - 1
    disc = (places[:, None].square() + places.square()).sqrt() < 0.8
    assert _error(moved[..., disc], expected[..., disc]) < allowed
    assert _error(still[..., disc], expected[..., disc]) > 10 * allowed


# Parts, by hand.

SIGNAL = Signal(cutoff=2.0, half_width=2.0, rate=16, size=20, channels=3)


def _features() -> FourierFeatures:
    torch.manual_seed(0)
    features = FourierFeatures(SIGNAL, w_dim=5)
    features.weight.data = torch.eye(3) * math.sqrt(3)
    return features


def test_fourier_features_are_sines_of_the_place() -> None:
    features = _features()
    x = features(torch.randn(2, 5))
    assert x.shape == (2, 3, 20, 20)
    place = torch.tensor([(4 + 0.5) / 16 - 10 / 16, (7 + 0.5) / 16 - 10 / 16])  # column 4, row 7; a margin of 2 samples
    expected = torch.sin(2 * math.pi * (features.freqs @ place + features.phases))
    torch.testing.assert_close(x[:, :, 7, 4], expected.expand(2, -1))


def test_frequencies_are_uniform_in_a_disc() -> None:
    torch.manual_seed(0)
    freqs = FourierFeatures(Signal(3.0, 1.0, 16, 16, 2_000), w_dim=1).freqs
    radii = freqs.norm(dim=1)
    assert radii.max() <= 3
    assert (radii < 1.5).float().mean().item() == pytest.approx(0.25, abs=0.04)
    assert freqs.mean(0).abs().max() < 0.15


def test_w_moves_and_turns_the_features_after_transform_s_inverse() -> None:
    """The features of w's (cos, sin, x, y) are those at the place that is moved back, turned, after `transform`."""
    features = _features()
    features.affine.bias.data = torch.tensor([0.6, 0.8, 0.1, -0.2]) * 5
    features.transform.copy_(torch.tensor([[0.0, 1.0, 0.3], [-1.0, 0.0, 0.1], [0.0, 0.0, 1.0]]))
    place = torch.tensor([(4 + 0.5) / 16 - 10 / 16, (7 + 0.5) / 16 - 10 / 16, 1.0])
    moved = (features.transform @ place)[:2] - torch.tensor([0.1, -0.2])
    turned = torch.tensor([[0.6, -0.8], [0.8, 0.6]]) @ moved
    expected = torch.sin(2 * math.pi * (features.freqs @ turned + features.phases))
    torch.testing.assert_close(features(torch.zeros(1, 5))[0, :, 7, 4], expected)


def test_features_beyond_the_rate_fade() -> None:
    """A zoom by a factor makes frequencies higher: half between cutoff 2 and half the rate 8 is 5, and 8 is none."""
    features = _features()
    features.freqs.copy_(torch.tensor([[2.0, 0.0], [0.0, -2.0], [1.0, 0.0]]))
    for zoom, heights in ((1.0, [1, 1, 1]), (2.5, [0.5, 0.5, 1 - 0.5 / 6]), (4.0, [0, 0, 1 - 2 / 6])):
        features.transform[:2, :2] = zoom * torch.eye(2)
        assert features._amplitudes(features.freqs[None] * zoom)[0].tolist() == pytest.approx(heights)
    assert features(torch.zeros(1, 5))[0, :2].abs().max() == 0


def test_a_layer_is_the_paper_s_with_weights_of_each_sample_s_own() -> None:
    """Weights and styles normalised, modulated, demodulated, divided by the magnitude: a convolution a sample."""
    torch.manual_seed(0)
    layer = Layer(SIGNAL, SIGNAL._replace(channels=4), 5, kernel=3, radial=True, filter_size=6, oversampling=2).eval()
    layer.bias.data.normal_()
    layer.magnitude_ema.fill_(4.0)
    x, w = torch.randn(2, 3, 20, 20), torch.randn(2, 5)
    weight = layer.weight / layer.weight.square().mean((1, 2, 3), keepdim=True).sqrt()
    styles = layer.affine(w)
    styles = styles / styles.square().mean().sqrt()
    convolved = []
    for n in range(2):
        own = weight * styles[n, None, :, None, None]
        own = own / own.square().sum((1, 2, 3), keepdim=True).sqrt() / 2
        convolved.append(F.conv2d(x[n : n + 1], own, layer.bias, padding=2))
    expected = filtered_leaky_relu(torch.cat(convolved), layer.up_filter, layer.down_filter, up=2, down=2, out_size=20)
    torch.testing.assert_close(layer(x, w), expected, rtol=1e-4, atol=1e-5)


def test_the_picture_is_a_modulated_convolution_without_demodulation() -> None:
    torch.manual_seed(0)
    to_image = ToImage(4, 3, 5).eval()
    to_image.bias.data.normal_()
    to_image.magnitude_ema.fill_(0.25)
    x, w = torch.randn(2, 4, 6, 6), torch.randn(2, 5)
    own = to_image.weight[None, :, :, 0, 0] * to_image.affine(w)[:, None] / math.sqrt(4) * 2
    expected = torch.einsum("noc,nchw->nohw", own, x) + to_image.bias[:, None, None]
    torch.testing.assert_close(to_image(x, w), expected)


def test_magnitudes_are_learnt_in_training_alone_with_a_half_life_in_images() -> None:
    to_image = ToImage(2, 1, 3)
    x, w = torch.full((400, 2, 4, 4), 3.0), torch.zeros(400, 3)
    to_image.eval()(x, w)
    assert to_image.magnitude_ema == 1
    to_image.train()
    for _ in range(2 * 20_000 // 400):  # D's and G's passes
        with torch.no_grad():
            to_image(x, w)
    assert to_image.magnitude_ema.item() == pytest.approx((1 + 9) / 2, rel=1e-4)


# The objective.


def test_recipe_of_the_paper() -> None:
    for kind, blur_px in (("T", 0.0), ("R", 10.0)):
        settings = SPECS[kind].presets["ffhq1024"]
        D, D_reg, G = SPECS[kind].phases(settings)
        assert [(phase.label, phase.interval) for phase in (D, D_reg, G)] == [("D", 1), ("D_reg", 16), ("G", 1)]
        assert D.optimiser == D_reg.optimiser
        assert D.optimiser.options(0) == {"lr": 0.002 * 16 / 17, "betas": (0.0, 0.99 ** (16 / 17))}
        assert G.optimiser.options(0) == {"lr": 0.0025, "betas": (0.0, 0.99)}
        assert (settings.gamma, settings.batch, settings.total_nimg) == (32.8, 32, 25_000_000)  # type: ignore[attr-defined]
        step = Step({}, torch.zeros(1), None, settings, 0, 0, stream(0))
        at = {nimg: dataclasses.replace(step, nimg=nimg).at(settings.blur_px) for nimg in (0, 100_000, 200_000, 10**6)}  # type: ignore[attr-defined]
        assert at == {0: blur_px, 100_000: blur_px / 2, 200_000: 0, 10**6: 0}


class Spy(torch.nn.Module):
    """A discriminator that remembers what it saw."""

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        self.seen = x
        return x.mean((1, 2, 3))


@pytest.mark.parametrize("phase", range(3))
@pytest.mark.parametrize("kind", ["T", "R"])
def test_d_sees_blurred_pictures_at_first_in_r(kind: str, phase: int) -> None:
    settings = SPECS[kind].presets["tiny"]
    G, x = build(settings)["G"].eval(), torch.randn(4, 1, 16, 16)  # type: ignore[arg-type]
    c, D = torch.eye(10)[:4], Spy()
    for nimg, deviation in ((0, 1.0), (1000, 0.5), (2000, 0.0)):
        SPECS[kind].phases(settings)[phase].function(Step({"G": G, "D": D}, x, c, settings, 16, nimg, stream(1)))
        expected = x if phase == 1 else G(torch.randn(4, 16, generator=stream(1)), c)
        expected = gaussian_blur(expected, deviation if kind == "R" else 0.0)
        torch.testing.assert_close(D.seen, expected)


def test_the_blur_comes_before_the_augmentation() -> None:
    class Double(torch.nn.Module):
        def forward(self, x: Tensor, nimg: int, generator: torch.Generator) -> Tensor:
            return x.square() + nimg

    D, G, x = Spy(), build(TINY)["G"].eval(), torch.zeros(2, 1, 16, 16)  # type: ignore[arg-type]
    c = torch.eye(10)[:2]
    step = Step({"G": G, "D": D, "augment": Double()}, x, c, TINY, 16, 7, stream(2))
    blurred(step, lambda step: generator_step(step, non_saturating_g), 1.0)
    x_fake = G(torch.randn(2, 16, generator=stream(2)), c)
    torch.testing.assert_close(D.seen, gaussian_blur(x_fake, 1.0).square() + 7)


@pytest.mark.parametrize("kind", ["T", "R"])
@pytest.mark.parametrize("preset", ["size32", "size64"])
def test_presets_for_a_cpu_are_light(kind: str, preset: str) -> None:
    with torch.device("meta"):
        networks = build(SPECS[kind].presets[preset])  # type: ignore[arg-type]
    assert sum(p.numel() for network in networks.values() for p in network.parameters()) < 2.5e6


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_layers": 1}, "1 layers, 1 of them critically sampled"),
        ({"num_layers": 1000}, "1000 layers"),
        ({"num_critical": 0}, "0 of them"),
        ({"first_cutoff": 0.0}, "first_cutoff 0"),
        ({"first_cutoff": 9.0, "first_stopband": 9.5}, "first_cutoff 9"),
        ({"first_stopband": 1.0}, "first_stopband 1"),
        ({"last_stopband_ratio": 0.9}, "to half of size 16"),
        ({"oversampling": 1}, "oversampling: 1"),
        ({"size": 24}, "size: 24"),
    ],
)
def test_refuses_numbers_that_make_no_network(changes: dict, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        build(dataclasses.replace(TINY, **changes))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
