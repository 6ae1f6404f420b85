"""WGAN-GP: a critic kept Lipschitz by a penalty on its gradient (Gulrajani et al. 2017, arXiv:1704.00028).

Objective: Wasserstein loss + lambda (||d D(x) / d x|| - 1)^2 between reals and fakes (eq. 3), five steps of the critic
to one of G (algorithm 1). The penalty is one per picture, so nothing in the critic looks across a batch: layer
normalisation or none (section 4).
Networks: residual blocks as in the authors' code (igul222/improved_wgan_training), G with batch normalisation.
- `Discriminator` is the critic of gan_cifar_resnet.py: it halves down to 8 px, goes on there and ends in the mean over
  pixels. With `normalise` it has layer normalisation wherever StudioGAN's WGAN-GP (POSTECH-CVLab/PyTorch-StudioGAN,
  SNGAN's ResNet of arXiv:1802.05957, table 3) has batch normalisation: equal parameter counts.
- `PyramidDiscriminator` is the one of gan_64x64.py: halves down to 4 px and weighs every pixel, layer normalisation.
Classes, which the published networks take by conditional batch normalisation and an auxiliary classifier, enter as in
conditional GANs (arXiv:1411.1784): one-hot, appended to z in G and as constant planes to the picture in the critic.
Further deviations: no noise is added to reals; G's batches are as large as the critic's, not twice; the 64 px blocks'
first convolutions have biases too.

Shapes: z [N,num_z], c [N,num_classes] one-hot, images [N,C,S,S] in [-1,1], logits [N].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from countermark.core.errors import UsageError
from countermark.core.spec import Adam, Phase, Schedule, Scheduled, Settings, Spec, Step
from countermark.losses.adversarial import wasserstein_d, wasserstein_g
from countermark.losses.penalties import one_centred
from countermark.losses.steps import generator_step
from countermark.nn.augmentation import augmenting
from countermark.nn.conditioning import with_class_planes, with_classes
from countermark.nn.convolution import ConvDown, ConvUp


def _initialise(network: nn.Module) -> None:
    """Uniform weights of variance 4 / (fan in + fan out) in the residual branches, half that elsewhere; biases 0."""
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter, gain=math.sqrt(2) if ".residual." in name else 1.0)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


def _conv(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


def _layer_norm(channels: int) -> nn.Module:
    """Over a sample's channels and pixels, with a gain and a bias per channel."""
    return nn.GroupNorm(1, channels)


class UpBlock(nn.Module):
    """[N,in,H,W] to [N,out,2H,2W]: batch normalisation and ReLU before each convolution, plus a 1x1 shortcut."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.ReLU(),
            ConvUp(in_channels, out_channels),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            _conv(out_channels, out_channels),
        )
        # A 1x1 convolution and the repetition of pixels commute; it comes first, where pixels are few.
        self.shortcut = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), nn.Upsample(scale_factor=2))

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.residual(x)


class CriticBlock(nn.Module):
    """[N,in,H,W] to [N,out,H/2,W/2] (`down`) or [N,out,H,W]: two convolutions beside a 1x1 shortcut, if one is needed.

    `first`: x are pictures, so nothing comes before the first convolution. `normalise`: layer normalisation before
    every ReLU, and with `normalise_shortcut` before the shortcut's convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        down: bool,
        first: bool = False,
        normalise: bool = False,
        normalise_shortcut: bool = False,
    ) -> None:
        super().__init__()
        inner = out_channels if first else in_channels
        norm = _layer_norm if normalise else lambda channels: nn.Identity()
        before = [] if first else [norm(in_channels), nn.ReLU()]
        last = (ConvDown if down else _conv)(inner, out_channels)
        self.residual = nn.Sequential(*before, _conv(in_channels, inner), norm(inner), nn.ReLU(), last)
        shortcut: list[nn.Module] = [nn.AvgPool2d(2)] if down else []
        if down or in_channels != out_channels:
            shortcut += [_layer_norm(in_channels)] if normalise_shortcut else []
            shortcut += [nn.Conv2d(in_channels, out_channels, 1)]
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.residual(x)


class Generator(nn.Module):
    """z [N,num_z], c [N,num_classes] or None to images [N,channels,S,S], S = 4 * 2^(len(widths) - 1).

    widths: channels at 4, 8, ... S pixels.
    """

    def __init__(self, *, num_z: int, widths: Sequence[int], channels: int = 3, num_classes: int = 0) -> None:
        super().__init__()
        self.linear = nn.Linear(num_z + num_classes, widths[0] * 16)
        self.blocks = nn.Sequential(*(UpBlock(width, narrower) for width, narrower in pairwise(widths)))
        self.to_image = nn.Sequential(nn.BatchNorm2d(widths[-1]), nn.ReLU(), _conv(widths[-1], channels), nn.Tanh())
        _initialise(self)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        return self.to_image(self.blocks(self.linear(with_classes(z, c)).unflatten(1, (-1, 4, 4))))


class Discriminator(nn.Module):
    """Images [N,channels,S,S], c [N,num_classes] or None to logits [N]; widths: channels after each block.

    The first len(widths) - 2 blocks, and at least one, halve the side: from S = 4 * 2^(len(widths) - 1) down to 8 px.
    """

    def __init__(
        self, *, widths: Sequence[int], normalise: bool = False, channels: int = 3, num_classes: int = 0
    ) -> None:
        super().__init__()
        num_down = max(len(widths) - 2, 1)
        block = partial(CriticBlock, normalise=normalise, normalise_shortcut=normalise)
        self.blocks = nn.Sequential(
            block(channels + num_classes, widths[0], down=True, first=True),
            *(block(*pair, down=i < num_down) for i, pair in enumerate(pairwise(widths), 1)),
        )
        self.linear = nn.Linear(widths[-1], 1)
        _initialise(self)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        return self.linear(self.blocks(with_class_planes(x, c)).relu().mean((2, 3)))[:, 0]


class PyramidDiscriminator(nn.Module):
    """Images [N,channels,S,S], c [N,num_classes] or None to logits [N]; widths: channels at S, S/2, ... 4 pixels."""

    def __init__(self, *, widths: Sequence[int], channels: int = 3, num_classes: int = 0) -> None:
        super().__init__()
        self.from_image = _conv(channels + num_classes, widths[0])
        self.blocks = nn.Sequential(*(CriticBlock(*pair, down=True, normalise=True) for pair in pairwise(widths)))
        self.linear = nn.Linear(widths[-1] * 16, 1)
        _initialise(self)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        return self.linear(self.blocks(self.from_image(with_class_planes(x, c))).flatten(1))[:, 0]


@dataclass(frozen=True, kw_only=True)
class WGANGPSettings(Settings):
    """widths_g: G's channels from 4 px upwards. widths_d: the critic's, from the full size down.

    critic: which of this file's two, `normalised` being Discriminator with layer normalisation.
    gradient_penalty: lambda. num_critic: steps of the critic to one of G.
    """

    num_z: int = 128
    widths_g: tuple[int, ...]
    widths_d: tuple[int, ...]
    critic: Literal["plain", "normalised", "pyramid"] = "plain"
    lr: Scheduled = 1e-4
    gradient_penalty: float = 10.0
    num_critic: int = 5


def build(settings: WGANGPSettings) -> dict[str, nn.Module]:
    """G and D, freshly initialised. Raises UsageError when the numbers of widths do not fit the size."""
    s = settings
    num_g, num_d = len(s.widths_g), len(s.widths_d)
    if num_g != num_d or num_g < 2 or s.size != 4 << (num_g - 1):
        raise UsageError(
            f"wgan_gp: size {s.size} does not fit {num_g} widths_g and {num_d} widths_d; give 2 of each for 8 px, "
            "3 for 16, 4 for 32, ..."
        )
    shape = {"channels": s.channels, "num_classes": s.num_classes}
    D: nn.Module
    if s.critic == "pyramid":
        D = PyramidDiscriminator(widths=s.widths_d, **shape)
    else:
        D = Discriminator(widths=s.widths_d, normalise=s.critic == "normalised", **shape)
    return {"G": Generator(num_z=s.num_z, widths=s.widths_g, **shape), "D": D, **augmenting(s)}


def critic_step(step: Step, gradient_penalty: float) -> dict[str, Tensor]:
    """Wasserstein loss and gradient penalty, of pictures before augmentation; all but "loss" are values per sample [N].

    "distance" estimates the Wasserstein distance; its sign, not the critic's, whose zero means nothing, is "r_t".
    """
    x_fake = step.fakes()
    logits_real, logits_fake = step.judge(torch.cat([step.x, x_fake]), sides=2).chunk(2)
    penalty = one_centred(step.judge, step.x, x_fake, step.generator)
    distance = logits_real - logits_fake
    return {
        "loss": (wasserstein_d(logits_real, logits_fake) + gradient_penalty * penalty).mean(),
        "logits_real": logits_real,
        "logits_fake": logits_fake,
        "distance": distance,
        "r_t": distance.sign(),
        "penalty": penalty,
    }


def phases(settings: WGANGPSettings) -> tuple[Phase, ...]:
    adam = Adam(settings.lr, beta1=0.0, beta2=0.9)
    return (
        Phase("D", adam, partial(critic_step, gradient_penalty=settings.gradient_penalty)),
        Phase("G", adam, partial(generator_step, loss=wasserstein_g), interval=settings.num_critic),
    )


_CIFAR_NIMG = 100_000 * 5 * 64  # G's steps, the critic's to each, and the batch

SPEC = Spec(
    name="wgan_gp",
    kind="image",
    paper="arXiv:1704.00028",
    year=2017,
    presets={
        "size32": WGANGPSettings(
            size=32,
            widths_g=(128, 128, 64, 32),
            widths_d=(32, 64, 96, 96),
            batch=16,
            total_nimg=1_000_000,
            channels_last=True,  # faster on a CPU here, unlike in DCGAN
        ),
        "size64": WGANGPSettings(
            size=64,
            widths_g=(128, 128, 64, 32, 16),
            widths_d=(16, 32, 64, 96, 96),
            batch=16,
            total_nimg=1_000_000,
            channels_last=True,
        ),
        "cifar10": WGANGPSettings(
            size=32,
            widths_g=(128,) * 4,
            widths_d=(128,) * 4,
            lr=Schedule(2e-4, 0.0, _CIFAR_NIMG, "linear"),
            total_nimg=_CIFAR_NIMG,
        ),
        "sngan32": WGANGPSettings(
            size=32,
            widths_g=(256,) * 4,
            widths_d=(128,) * 4,
            critic="normalised",
            lr=Schedule(2e-4, 0.0, _CIFAR_NIMG, "linear"),
            total_nimg=_CIFAR_NIMG,
        ),
        "imagenet64": WGANGPSettings(
            size=64,
            widths_g=(512, 512, 256, 128, 64),
            widths_d=(64, 128, 256, 512, 512),
            critic="pyramid",
            total_nimg=200_000 * 5 * 64,
        ),
        "tiny": WGANGPSettings(
            size=8, channels=1, num_z=16, widths_g=(32, 32), widths_d=(32, 32), lr=5e-4, batch=16, total_nimg=40_000
        ),
    },
    build=build,
    phases=phases,
    num_z=lambda settings: settings.num_z,
    head=lambda D: D.linear,
    holds={"gradient_penalty": "gradient_penalty", "critic_steps": "num_critic"},
)
