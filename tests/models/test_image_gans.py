"""Shapes, parameter counts and particulars of the image GANs."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from countermark.core.errors import UsageError
from countermark.core.seeds import generator
from countermark.core.spec import Schedule, Settings, Spec, Step, at
from countermark.models import find
from countermark.models.image import biggan, biggan_deep, dcgan, gan, r3gan, sagan, sngan, wgan, wgan_gp
from countermark.nn.augmentation import Augment
from countermark.nn.residual import ResidualSettings

# From the papers' official implementations.
PARAMETERS = {
    ("dcgan", "dcgan64"): (3_576_704, 2_765_568),
    ("r3gan", "cifar10"): (20_781_952, 21_280_512),
    ("r3gan", "ffhq64"): (22_429_824, 22_381_440),
    ("r3gan", "ffhq256"): (23_057_952, 23_009_568),
    ("r3gan", "imagenet32"): (82_914_304, 86_548_992),
    ("r3gan", "imagenet64"): (103_570_432, 107_205_120),
    ("wgan", "lsun64"): (3_576_704, 2_765_568),  # DCGAN's
    # By hand: linear layer, three blocks, output; the critic's blocks 1, 2, 3 and 4, output.
    ("wgan_gp", "cifar10"): (264_192 + 3 * 312_192 + 3_715, 151_680 + 311_680 + 2 * 295_168 + 129),
    ("wgan_gp", "sngan32"): (4_276_739, 1_055_879),  # StudioGAN's WGAN-GP for CIFAR-10
    ("sngan", "cifar10"): (4_304_387, 1_055_105),  # StudioGAN's
    # SAGAN by hand in test_sagan.py. BigGAN: ajbrock/BigGAN-PyTorch.
    ("biggan", "imagenet64"): (31_969_540, 20_571_842),
    ("biggan", "imagenet128"): (70_433_988, 87_982_370),
    ("biggan", "imagenet128_ch64"): (31_978_628, 39_448_258),
    ("biggan", "imagenet256"): (82_235_844, 99_225_890),
    ("biggan_deep", "imagenet128"): (50_244_484, 34_590_210),
    # G 100-1200-1200-784; D two maxout layers of 240 units with 5 pieces, one output: counted by hand.
    ("gan", "mnist"): (101 * 1200 + 1201 * 1200 + 1201 * 784, 785 * 1200 + 241 * 1200 + 241),
}


@pytest.mark.parametrize(("model", "preset"), PARAMETERS)
def test_parameter_counts_of_the_papers(model: str, preset: str) -> None:
    spec = find(model)
    with torch.device("meta"):
        networks = spec.build(spec.presets[preset])
    counts = tuple(sum(p.numel() for p in networks[name].parameters()) for name in ("G", "D"))
    assert counts == PARAMETERS[model, preset]


GANS: tuple[Spec, ...] = (
    gan.SPEC,
    dcgan.SPEC,
    wgan.SPEC,
    wgan_gp.SPEC,
    sngan.SPEC,
    sagan.SPEC,
    biggan.SPEC,
    biggan_deep.SPEC,
    r3gan.SPEC,
)


def _at_size(settings: Settings, size: int, **other: int) -> Settings:
    if isinstance(settings, r3gan.R3GANSettings):
        num = int(math.log2(size)) - 1
        other |= {"widths": (16,) * num, "cardinalities": (2,) * num, "blocks": (1,) * num}  # type: ignore[dict-item]
    if isinstance(settings, wgan_gp.WGANGPSettings | ResidualSettings):
        widths = (16,) * (int(math.log2(size)) - 1)
        other |= {"widths_g": widths, "widths_d": widths, "num_z": 4 * len(widths)}  # type: ignore[dict-item]
    if isinstance(settings, ResidualSettings):
        other["attention_d"] = (size // 2,) if settings.attention_d else ()  # type: ignore[assignment]
    return dataclasses.replace(settings, size=size, **other)  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", GANS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("size", [8, 16, 32, 64, 128])
@pytest.mark.parametrize("num_classes", [0, 3])
def test_shapes_at_every_size(spec: Spec, size: int, num_classes: int) -> None:
    settings = _at_size(spec.presets["tiny"], size, channels=3, num_classes=num_classes)
    with torch.device("meta"):
        networks = spec.build(settings)
        z = torch.randn(2, spec.num_z(settings))
        c = torch.zeros(2, num_classes) if num_classes else None
        x = networks["G"](z, c)
        assert x.shape == (2, 3, size, size)
        assert networks["D"](x, c).shape == (2,)


@pytest.mark.parametrize("spec", GANS, ids=lambda spec: spec.name)
def test_classes_change_pictures_and_logits(spec: Spec) -> None:
    torch.manual_seed(0)
    settings = dataclasses.replace(spec.presets["tiny"], num_classes=2)
    networks = {name: network.eval() for name, network in spec.build(settings).items()}
    z, classes = torch.randn(1, spec.num_z(settings)).expand(2, -1), torch.eye(2)
    x = networks["G"](z, classes)
    assert (x[0] - x[1]).abs().max() > 1e-4
    logits = networks["D"](x[:1].expand(2, -1, -1, -1), classes)
    assert (logits[0] - logits[1]).abs() > 1e-3 * logits.abs().max()


class Seen(nn.Module):
    """In augmentation's place: changes nothing and notes which pictures pass."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures: list[Tensor] = []

    def forward(self, x: Tensor, nimg: int, stream: torch.Generator) -> Tensor:
        self.pictures += x.unbind()
        return x


@pytest.mark.parametrize("spec", GANS, ids=lambda spec: spec.name)
def test_every_picture_passes_the_augmentation_before_the_discriminator(spec: Spec) -> None:
    torch.manual_seed(0)
    settings = spec.presets["tiny"]
    networks = spec.build(settings)
    judged: list[Tensor] = []
    networks["D"].register_forward_pre_hook(lambda module, args: judged.extend(args[0].unbind()))
    seen = networks["augment"] = Seen()
    x = torch.randn(4, settings.channels, settings.size, settings.size)
    c = torch.eye(settings.num_classes)[:4] if settings.num_classes else None
    for phase in spec.phases(settings):
        terms = phase.function(Step(networks, x, c, settings, spec.num_z(settings), 0, generator(0)))
        assert ("r_t" in terms) == (phase.network == "D")  # what steers the augmentation
    assert len(seen.pictures) >= 12
    assert all(torch.equal(*pair) for pair in zip(judged, seen.pictures, strict=True))


@pytest.mark.parametrize("spec", GANS, ids=lambda spec: spec.name)
def test_every_model_can_be_augmented(spec: Spec) -> None:
    settings = dataclasses.replace(spec.presets["tiny"], augment="bgc", augment_p=0.3)
    augment = spec.build(settings)["augment"]
    assert isinstance(augment, Augment)
    assert augment.schedule == 0.3
    assert "augment" not in spec.build(spec.presets["tiny"])


@pytest.mark.parametrize("size", [4, 12, 48, 0])
def test_dcgan_refuses_other_sizes(size: int) -> None:
    with pytest.raises(UsageError, match=rf"size {size} .*choose"):
        dcgan.build(dataclasses.replace(dcgan.SPEC.presets["tiny"], size=size))


def test_dcgan_has_the_official_keys_at_64() -> None:
    with torch.device("meta"):
        networks = dcgan.build(dcgan.SPEC.presets["dcgan64"])
    convolutions = {"G": [0, 3, 6, 9, 12], "D": [0, 2, 5, 8, 11]}
    for name, expected in convolutions.items():
        found = [int(key.split(".")[1]) for key, p in networks[name].named_parameters() if p.ndim == 4]
        assert found == expected


def test_dcgan_initialisation() -> None:
    torch.manual_seed(0)
    G = dcgan.build(dcgan.SPEC.presets["mnist32"])["G"]
    assert G.main[3].weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert G.main[1].weight.mean().item() == pytest.approx(1, abs=0.01)
    assert G.main[1].bias.abs().max() == 0


@pytest.mark.parametrize("other", [{"size": 16}, {"blocks": (1,)}, {"cardinalities": (1, 1, 1)}])
def test_r3gan_refuses_stages_that_do_not_fit(other: dict) -> None:
    with pytest.raises(UsageError, match=r"r3gan: size .* give one of each per stage"):
        r3gan.build(dataclasses.replace(r3gan.SPEC.presets["tiny"], **other))


def test_r3gan_initialisation() -> None:
    """Gain sqrt(2 / 1.04) L^(-1/4) over sqrt(fan in) in the blocks; every block is the identity at first."""
    torch.manual_seed(0)
    settings = dataclasses.replace(
        r3gan.SPEC.presets["tiny"], widths=(64, 64), cardinalities=(8, 8), blocks=(2, 3), num_classes=10
    )
    networks = r3gan.build(settings)
    gain = math.sqrt(2 / 1.04) * 5**-0.25
    for network in networks.values():
        blocks = [module for module in network.modules() if isinstance(module, r3gan.ResidualBlock)]
        assert len(blocks) == 5
        for block in blocks:
            assert block.conv1.weight.std().item() == pytest.approx(gain / math.sqrt(64), rel=0.05)
            assert block.conv2.weight.std().item() == pytest.approx(gain / math.sqrt(9 * 16), rel=0.05)
            x = torch.randn(1, 64, 4, 4)
            assert torch.equal(block(x), x)
    D = networks["D"]
    assert D.embed.weight.std().item() == pytest.approx(1 / math.sqrt(10 * 64), rel=0.1)
    assert D.stages[-1][-1].basis.weight.std().item() == pytest.approx(1 / 4, rel=0.1)


def test_r3gan_discriminator_judges_each_picture_alone() -> None:
    """What lets reals and fakes pass as one batch, and makes R1 and R2 per sample."""
    torch.manual_seed(0)
    D = r3gan.build(r3gan.SPEC.presets["tiny"])["D"]
    x, c = torch.randn(4, 1, 8, 8), torch.eye(10)[:4]
    torch.testing.assert_close(D(x, c), torch.cat([D(x[i : i + 1], c[i : i + 1]) for i in range(4)]))


def test_r3gan_schedules_of_the_paper() -> None:
    cifar = r3gan.SPEC.presets["cifar10"]
    halfway = 10_000_000
    assert at(cifar.lr, 0) == 2e-4
    assert at(cifar.lr, halfway) == pytest.approx((2e-4 + 5e-5) / 2)
    assert at(cifar.lr, 10**9) == pytest.approx(5e-5)
    assert at(cifar.gamma, 0) == 0.05
    assert cifar.gamma.end == pytest.approx(0.005)
    assert cifar.ema_halflife_nimg == Schedule(0, 5_000_000, 20_000_000)
    for phase in r3gan.phases(cifar):
        assert phase.optimiser.options(0) == {"lr": 2e-4, "betas": (0.0, 0.9)}


def test_r3gan_augmentation_of_the_paper() -> None:
    ends = {"cifar10": 0.55, "ffhq64": 0.3, "ffhq256": 0.3, "imagenet32": 0.5, "imagenet64": 0.4}
    for name, end in ends.items():
        preset = r3gan.SPEC.presets[name]
        assert preset.augment == "r3gan"
        assert preset.augment_p == Schedule(0, end, preset.total_nimg)
    assert r3gan.SPEC.presets["mnist32"].augment == ""


def test_r3gan_penalises_the_gradient_in_the_pictures_before_augmentation() -> None:
    """Through an augmentation that halves pictures, the gradient in them is half of D's own."""

    class Half(nn.Module):
        def forward(self, x: Tensor, nimg: int, stream: torch.Generator) -> Tensor:
            return x / 2

    torch.manual_seed(0)
    settings = dataclasses.replace(r3gan.SPEC.presets["tiny"], num_classes=0)
    networks = r3gan.build(settings)
    x = torch.randn(4, 1, 8, 8)
    direct = r3gan.discriminator_step(Step(networks, x / 2, None, settings, 64, 0, generator(0)), 1.0)
    halved = r3gan.discriminator_step(
        Step({**networks, "augment": Half()}, x, None, settings, 64, 0, generator(0)), 1.0
    )
    torch.testing.assert_close(halved["logits_real"], direct["logits_real"])
    torch.testing.assert_close(halved["r1"], direct["r1"] / 4)


def test_gan_noise_is_uniform() -> None:
    """G's first layer sees uniform noise of variance 1 when z is standard normal."""
    G = gan.build(gan.SPEC.presets["tiny"])["G"]
    seen = []
    G.layers[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    G(torch.randn(4000, 16, generator=torch.Generator().manual_seed(0)))
    noise = seen[0].flatten().sort().values / math.sqrt(3)
    expected = torch.linspace(-1, 1, len(noise))
    assert (noise - expected).abs().max() < 0.02


def test_gan_maxout_takes_the_greatest_piece() -> None:
    maxout = gan.Maxout(2, 1, 3)
    with torch.no_grad():
        maxout.affine.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]))
        maxout.affine.bias.zero_()
    x = torch.tensor([[2.0, 1.0], [0.0, 3.0], [-1.0, -4.0]])
    assert maxout(x).tolist() == [[2], [3], [5]]


def test_gan_schedules_of_the_published_configuration() -> None:
    sgd = gan.phases(gan.SPEC.presets["mnist"])[0].optimiser
    assert sgd.options(0) == {"lr": 0.1, "momentum": 0.5}
    end = sgd.options(12_500_000)
    assert end["momentum"] == pytest.approx(0.7)
    assert end["lr"] == pytest.approx(0.1 * math.exp(-0.5), rel=1e-4)


@pytest.mark.parametrize(
    "preset",
    [(spec, name) for spec in GANS if spec.from_official for name in spec.presets],
    ids=lambda pair: f"{pair[0].name}-{pair[1]}",
)
def test_shapes_say_the_settings(preset: tuple[Spec, str]) -> None:
    """An official state dict fixes every setting of the networks; our own keys are names of it too."""
    spec, name = preset
    settings = dataclasses.replace(spec.presets[name], num_classes=0 if spec.name == "dcgan" else 7)
    with torch.device("meta"):
        tensors = {key: network.state_dict() for key, network in spec.build(settings).items()}
    assert spec.from_official is not None
    fixed, states = spec.from_official({"G": {}, "D": {}}, tensors)
    assert {key: state.keys() for key, state in states.items()} == {key: state.keys() for key, state in tensors.items()}
    assert {"size", "channels", "num_classes", "num_z"} <= fixed.keys()
    with torch.device("meta"):
        again = spec.build(dataclasses.replace(settings, **fixed))
    assert all(again[key].state_dict().keys() == state.keys() for key, state in states.items())
    free = [key for key in fixed if key.startswith("num_embed")]  # 0 in the presets means the authors' choice
    assert {key: fixed[key] for key in fixed if key not in free} == {
        key: getattr(settings, key) for key in fixed if key not in free
    }
