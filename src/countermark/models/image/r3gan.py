"""R3GAN: a GAN without tricks (Huang et al. 2024, arXiv:2501.05441).

Networks: stages at 4, 8, ... pixels of residual blocks (1x1, grouped 3x3, 1x1 convolutions, leaky ReLU with the only
biases), no normalisation; bilinear resampling between stages; G starts from a learnt 4x4 basis modulated by z, D ends
in a depthwise 4x4 basis. Classes: an embedding joins z in G and scores D's output vector by an inner product.
Objective: relativistic pairing with R1 + R2 at every step (eq. 2 and section 2).
Initialisation: every weight normal with deviation gain / sqrt(fan in), gain sqrt(2 / 1.04) L^(-1/4) inside the L
residual blocks and 0 for the last convolution of each, which makes a block the identity at first.
D sees every picture through `Step.seen`; R1 and R2 are of the gradient in the pictures before augmentation.

Shapes: z [N,num_z], c [N,num_classes] one-hot, images [N,C,S,S] about [-1,1] (G has no tanh), logits [N].
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from countermark.core.errors import UsageError
from countermark.core.gradients import differentiable, second_derivatives
from countermark.core.spec import Adam, Phase, Schedule, Scheduled, Settings, Spec, Step
from countermark.losses.adversarial import relativistic_d, relativistic_g
from countermark.losses.penalties import zero_centred
from countermark.nn.activation import biased_leaky_relu
from countermark.nn.augmentation import augmenting
from countermark.nn.convolution import Conv2d
from countermark.nn.resampling import Downsample, Upsample

SLOPE = 0.2
ACTIVATION_GAIN = math.sqrt(2 / (1 + SLOPE**2))  # keeps the variance through a leaky ReLU (arXiv:1502.01852, eq. 15)


def _scaled(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> nn.Module:
    """`layer` with normal weights of deviation gain / sqrt(fan in)."""
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(layer.weight[0].numel()))
    return layer


def _conv(in_channels: int, out_channels: int, kernel: int = 1, groups: int = 1, gain: float = 1.0) -> nn.Module:
    layer = Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, groups=groups, bias=False)
    return _scaled(layer, gain)


class BiasedLeakyReLU(nn.Module):
    """The bias sits with the activation, [C] added before it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return biased_leaky_relu(x, self.bias, SLOPE)


class ResidualBlock(nn.Module):
    """x + conv3(act2(conv2(act1(conv1(x))))) on `width` channels, conv2 in `cardinality` groups (section 3.4)."""

    def __init__(self, width: int, cardinality: int, expansion: int, num_blocks: int) -> None:
        super().__init__()
        inner = width * expansion
        gain = ACTIVATION_GAIN * num_blocks**-0.25  # Fixup (arXiv:1901.09321) for three layers a block
        self.conv1 = _conv(width, inner, gain=gain)
        self.conv2 = _conv(inner, inner, kernel=3, groups=cardinality, gain=gain)
        self.conv3 = _conv(inner, width, gain=0.0)
        self.act1 = BiasedLeakyReLU(inner)
        self.act2 = BiasedLeakyReLU(inner)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv3(self.act2(self.conv2(self.act1(self.conv1(x)))))


def _projection(in_channels: int, out_channels: int) -> nn.Module:
    return _conv(in_channels, out_channels) if in_channels != out_channels else nn.Identity()


class Up(nn.Module):
    """To twice the side and `out_channels`; the 1x1 convolution comes first, where pixels are few."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.resample = Upsample()
        self.linear = _projection(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.resample(self.linear(x))


class Down(nn.Module):
    """To half the side and `out_channels`; the 1x1 convolution comes last, where pixels are few."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.resample = Downsample()
        self.linear = _projection(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.resample(x))


class GenerativeBasis(nn.Module):
    """Latents [N,in_dims] to [N,C,4,4]: a learnt picture per channel, scaled by a linear function of the latent."""

    def __init__(self, in_dims: int, channels: int) -> None:
        super().__init__()
        self.basis = nn.Parameter(torch.randn(channels, 4, 4))
        self.linear = _scaled(nn.Linear(in_dims, channels, bias=False))

    def forward(self, z: Tensor) -> Tensor:
        return self.basis * self.linear(z)[:, :, None, None]


class DiscriminativeBasis(nn.Module):
    """[N,C,4,4] to [N,out_dims]: the inner product of each channel with a learnt picture, then a linear map."""

    def __init__(self, channels: int, out_dims: int) -> None:
        super().__init__()
        self.basis = _scaled(Conv2d(channels, channels, 4, groups=channels, bias=False))
        self.linear = _scaled(nn.Linear(channels, out_dims, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.basis(x).flatten(1))


class Generator(nn.Module):
    """z [N,num_z], c [N,num_classes] or None to images [N,channels,S,S], S = 4 * 2^(len(widths) - 1).

    widths, cardinalities (groups of the 3x3 convolutions) and blocks are given per stage from 4x4 upwards.
    """

    def __init__(
        self,
        *,
        num_z: int,
        widths: Sequence[int],
        cardinalities: Sequence[int],
        blocks: Sequence[int],
        expansion: int = 2,
        channels: int = 3,
        num_classes: int = 0,
        num_embed: int = 0,
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        for i, width in enumerate(widths):
            num_in = num_z + (num_embed if num_classes else 0)
            transition = Up(widths[i - 1], width) if i else GenerativeBasis(num_in, width)
            residual = (ResidualBlock(width, cardinalities[i], expansion, sum(blocks)) for _ in range(blocks[i]))
            self.stages.append(nn.Sequential(transition, *residual))
        self.to_image = _conv(widths[-1], channels)
        self.embed = _scaled(nn.Linear(num_classes, num_embed, bias=False)) if num_classes else None

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        x = z if self.embed is None else torch.cat([z, self.embed(c)], 1)
        for stage in self.stages:
            x = stage(x)
        return self.to_image(x)


class Discriminator(nn.Module):
    """Images [N,channels,S,S], c [N,num_classes] or None to logits [N].

    widths, cardinalities and blocks are given per stage from the full size down to 4x4: G's, reversed.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int],
        cardinalities: Sequence[int],
        blocks: Sequence[int],
        expansion: int = 2,
        channels: int = 3,
        num_classes: int = 0,
        num_embed: int = 0,
    ) -> None:
        super().__init__()
        self.from_image = _conv(channels, widths[0])
        self.stages = nn.ModuleList()
        for i, width in enumerate(widths):
            last = i == len(widths) - 1
            num_out = num_embed if num_classes else 1
            transition = DiscriminativeBasis(width, num_out) if last else Down(width, widths[i + 1])
            residual = (ResidualBlock(width, cardinalities[i], expansion, sum(blocks)) for _ in range(blocks[i]))
            self.stages.append(nn.Sequential(*residual, transition))
        # The inner product sums num_embed terms, hence the gain.
        embed = partial(_scaled, gain=num_embed**-0.5) if num_classes else None
        self.embed = embed(nn.Linear(num_classes, num_embed, bias=False)) if embed else None

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        x = self.from_image(x)
        for stage in self.stages:
            x = stage(x)
        return x[:, 0] if self.embed is None else (x * self.embed(c)).sum(1)


@dataclass(frozen=True, kw_only=True)
class R3GANSettings(Settings):
    """Shape per stage from 4x4 upwards, and the schedules of learning rate, Adam's beta2 and the penalties' gamma.

    num_embed_g, num_embed_d: lengths of the class embeddings; 0 is the authors' choice, num_z in G and widths[0] in D.
    """

    widths: tuple[int, ...]
    cardinalities: tuple[int, ...]
    blocks: tuple[int, ...]
    expansion: int = 2
    num_z: int = 64
    num_embed_g: int = 0
    num_embed_d: int = 0
    lr: Scheduled
    beta2: Scheduled
    gamma: Scheduled


def build(settings: R3GANSettings) -> dict[str, nn.Module]:
    """G and D, freshly initialised. Raises UsageError when the number of stages does not fit the size."""
    s = settings
    num_stages = len(s.widths)
    if not num_stages == len(s.cardinalities) == len(s.blocks) or s.size != 4 * 2 ** (num_stages - 1):
        raise UsageError(
            f"r3gan: size {s.size} does not fit {num_stages} widths, {len(s.cardinalities)} cardinalities and "
            f"{len(s.blocks)} blocks; give one of each per stage, for sizes 4, 8, 16, ..."
        )
    G = Generator(
        num_z=s.num_z,
        widths=s.widths,
        cardinalities=s.cardinalities,
        blocks=s.blocks,
        expansion=s.expansion,
        channels=s.channels,
        num_classes=s.num_classes,
        num_embed=s.num_embed_g or s.num_z,
    )
    D = Discriminator(
        widths=s.widths[::-1],
        cardinalities=s.cardinalities[::-1],
        blocks=s.blocks[::-1],
        expansion=s.expansion,
        channels=s.channels,
        num_classes=s.num_classes,
        num_embed=s.num_embed_d or s.widths[0],
    )
    return {"G": G, "D": D, **augmenting(s)}


def discriminator_step(step: Step, gamma: Scheduled) -> dict[str, Tensor]:
    """Relativistic loss + gamma/2 (R1 + R2); all but "loss" are values per sample [N]."""
    x = differentiable(torch.cat([step.x, step.fakes()]))
    with second_derivatives():
        logits = step.judge(x, sides=2)
    logits_real, logits_fake = logits.chunk(2)
    r1, r2 = zero_centred(logits, x).chunk(2)
    adversarial = relativistic_d(logits_real, logits_fake)
    relativistic = logits_real - logits_fake
    return {
        "loss": (adversarial + step.at(gamma) / 2 * (r1 + r2)).mean(),
        "adversarial": adversarial,
        "logits_real": logits_real,
        "logits_fake": logits_fake,
        "relativistic": relativistic,
        "r_t": relativistic.sign(),
        "r1": r1,
        "r2": r2,
    }


def generator_step(step: Step) -> dict[str, Tensor]:
    """The mirrored relativistic loss; "relativistic" is D(G(z)) - D(x) here; values per sample [N] but for "loss"."""
    logits_fake = step.judge(step.fakes())
    logits_real = step.judge(step.x)
    adversarial = relativistic_g(logits_real, logits_fake)
    return {
        "loss": adversarial.mean(),
        "adversarial": adversarial,
        "logits_real": logits_real,
        "logits_fake": logits_fake,
        "relativistic": logits_fake - logits_real,
    }


def phases(settings: R3GANSettings) -> tuple[Phase, ...]:
    adam = Adam(settings.lr, beta1=0.0, beta2=settings.beta2)
    return (
        Phase("D", adam, partial(discriminator_step, gamma=settings.gamma)),
        Phase("G", adam, generator_step),
    )


# A segment of an official key, and ours ("" drops it).
_OFFICIAL = {
    "Model": "",
    "MainLayers": "stages",
    "Layers": "",
    "Layer": "",
    "LinearLayer": "linear",
    "LinearLayer1": "conv1",
    "LinearLayer2": "conv2",
    "LinearLayer3": "conv3",
    "NonLinearity1": "act1",
    "NonLinearity2": "act2",
    "Bias": "bias",
    "Basis": "basis",
    "Resampler": "resample",
    "Kernel": "kernel",
    "AggregationLayer": "to_image",
    "ExtractionLayer": "from_image",
    "EmbeddingLayer": "embed",
}


def rename_official(key: str) -> str:
    """A key of brownvc/R3GAN's state dict (without G. or D.) in our words; the order of parameters is the same."""
    return ".".join(filter(None, (_OFFICIAL.get(segment, segment) for segment in key.split("."))))


def from_official(arguments: dict, tensors: dict[str, dict[str, Tensor]]) -> tuple[dict, dict]:
    """The authors' checkpoints, which keep no constructor arguments: the shapes say everything."""
    ours = {name: {rename_official(key): t for key, t in official.items()} for name, official in tensors.items()}
    G, D = ours["G"], ours.get("D", {})
    blocks = Counter(int(key.split(".")[1]) for key in G if key.endswith(".conv1.weight"))
    first = [G[f"stages.{i}.1.conv1.weight"] for i in sorted(blocks)]  # [expansion * width, width, 1, 1]
    grouped = [G[f"stages.{i}.1.conv2.weight"] for i in sorted(blocks)]
    num_embed, num_classes = G["embed.weight"].shape if "embed.weight" in G else (0, 0)
    return {
        "size": 2 << len(blocks),
        "widths": tuple(w.shape[1] for w in first),
        "cardinalities": tuple(w.shape[0] // w.shape[1] for w in grouped),
        "blocks": tuple(blocks[i] for i in sorted(blocks)),
        "expansion": first[0].shape[0] // first[0].shape[1],
        "num_z": G["stages.0.0.linear.weight"].shape[1] - num_embed,
        "num_embed_g": num_embed,
        "num_embed_d": D["embed.weight"].shape[0] if "embed.weight" in D else 0,
        "channels": G["to_image.weight"].shape[0],
        "num_classes": num_classes,
    }, ours


def _settings(
    size: int,
    widths: tuple[int, ...],
    *,
    group: int,
    gamma: float,
    batch: int,
    total_nimg: int,
    ema_nimg: int,
    augment_p: float = 0.0,
    lr: float = 2e-4,
    num_blocks: int = 2,
    bf16: bool = False,
    channels: int = 3,
    num_classes: int = 0,
) -> R3GANSettings:
    """`num_blocks` blocks a stage, `group` channels a group, every schedule half a cosine over `total_nimg` images.

    augment_p: what the probability of augmentation rises to from 0; 0 for none. bf16: channels_last too.
    """
    return R3GANSettings(
        size=size,
        widths=widths,
        cardinalities=tuple(2 * width // group for width in widths),
        blocks=(num_blocks,) * len(widths),
        lr=Schedule(lr, lr / 4, total_nimg),
        beta2=Schedule(0.9, 0.99, total_nimg),
        gamma=Schedule(gamma, gamma / 10, total_nimg),
        batch=batch,
        total_nimg=total_nimg,
        ema_halflife_nimg=Schedule(0, ema_nimg, total_nimg),
        augment="r3gan" if augment_p else "",
        augment_p=Schedule(0, augment_p, total_nimg) if augment_p else None,
        bf16=bf16,
        channels_last=bf16,
        channels=channels,
        num_classes=num_classes,
    )


_WIDTHS_64 = (768, 768, 768, 768, 384)
# Batches of 8: in the hours that a CPU has, steps are what is short (docs/decisions.md).
_CPU: dict[str, Any] = {"group": 16, "gamma": 1.0, "batch": 8, "lr": 3e-4, "num_blocks": 1, "bf16": True}
_FACES: dict[str, Any] = {"group": 16, "total_nimg": 20_000_000, "ema_nimg": 500_000, "augment_p": 0.3}
_IMAGENET: dict[str, Any] = {"group": 32, "total_nimg": 200_000_000, "ema_nimg": 50_000_000, "num_classes": 1000}

SPEC = Spec(
    name="r3gan",
    kind="image",
    paper="arXiv:2501.05441",
    year=2024,
    presets={
        "size32": _settings(32, (256, 256, 128, 32), total_nimg=200_000, ema_nimg=5_000, **_CPU),
        "size64": _settings(64, (256, 256, 128, 64, 16), total_nimg=200_000, ema_nimg=5_000, **_CPU),
        "cifar10": _settings(
            32,
            (768,) * 4,
            group=16,
            gamma=0.05,
            batch=512,
            total_nimg=20_000_000,
            ema_nimg=5_000_000,
            augment_p=0.55,
            num_classes=10,
        ),
        "ffhq64": _settings(64, _WIDTHS_64, gamma=2.0, batch=256, **_FACES),
        "ffhq256": _settings(256, (*_WIDTHS_64, 192, 96), gamma=150.0, batch=256, **_FACES),
        "imagenet32": _settings(32, (1536,) * 4, augment_p=0.5, gamma=0.5, batch=4096, **_IMAGENET),
        "imagenet64": _settings(64, (1536,) * 5, augment_p=0.4, gamma=1.0, batch=4096, **_IMAGENET),
        "mnist32": _settings(
            32,
            (128, 64, 32, 8),
            group=16,
            gamma=1.0,
            batch=64,
            total_nimg=200_000,
            ema_nimg=10_000,
            num_blocks=1,
            channels=1,
            num_classes=10,
        ),
        "tiny": _settings(
            8,
            (32, 16),
            group=16,
            gamma=0.5,
            batch=32,
            total_nimg=20_000,
            ema_nimg=500,
            num_blocks=1,
            channels=1,
            num_classes=10,
        ),
    },
    build=build,
    phases=phases,
    num_z=lambda settings: settings.num_z,
    head=lambda D: D.stages[-1][-1],
    holds=dict.fromkeys(("r1", "lazy_r1", "r2", "lazy_r2"), "gamma"),
    rename_official=rename_official,
    from_official=from_official,
)
