"""StyleGAN2 with adaptive discriminator augmentation (Karras et al. 2019, arXiv:1912.04958; 2020, arXiv:2006.06676).

Networks: a mapping from z to w; a synthesis whose convolutions w modulates, with noise after each, and whose picture is
the sum of what every resolution adds (skip connections, section 4.1); D as in nn/stylegan2.py. Parameters bear the
official names.
Objective: the non-saturating loss with R1 every 16 batches and path length regularisation every 4 (section 3.2), each
times its interval and on the optimiser of its network, whose rates take account of the additional steps (appendix B).
Deviations: pictures are mixed one by one, not batch by batch; no clamping of activations, which float16 needed.

Shapes: z [N,num_z], c [N,num_classes] one-hot, ws [N,num_ws,w_dim], images [N,C,S,S] about [-1,1] (G has no tanh),
logits [N].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from countermark.core.chance import rand, randint, randn
from countermark.core.errors import UsageError
from countermark.core.precision import full_precision
from countermark.core.shares import mean, whole
from countermark.core.spec import Phase, Schedule, Settings, Spec, Step
from countermark.losses.adversarial import non_saturating_d, non_saturating_g
from countermark.losses.lazy import R1_INTERVAL, lazy_adam, r1_step
from countermark.losses.penalties import path_lengths
from countermark.losses.steps import discriminator_step, generator_step
from countermark.nn.augmentation import augmenting
from countermark.nn.convolution import conv2d, conv_transpose2d
from countermark.nn.modulation import demodulation, modulated
from countermark.nn.nvidia import (
    check_arguments,
    discriminator_shape,
    discriminator_widths,
    mapping_shape,
    without_filters,
)
from countermark.nn.resampling import KERNEL, blur, upsample
from countermark.nn.style import SLOPE, Linear, StyleGenerator, StyleMapping
from countermark.nn.stylegan2 import HOLDS, Architecture, Discriminator, sides, width_at

PATH_LENGTH_INTERVAL = 4  # batches (appendix B)
PATH_LENGTH_DECAY = 0.01


class StyledConv(nn.Module):
    """x [N,in,H,W], w [N,w_dim] to [N,out,S,S]: a modulated 3x3 convolution, noise, bias and leaky ReLU.

    S is H or, with `up`, 2H: zeros come between pixels first, and a low-pass filter after the convolution.
    The noise is torch's global generator's in training. In evaluation it is always the same, so that a picture depends
    on its w alone. One learnt strength, 0 at first, scales it.
    """

    noise_const: Tensor

    def __init__(self, in_channels: int, out_channels: int, size: int, w_dim: int, *, up: bool = False) -> None:
        super().__init__()
        self.affine = Linear(w_dim, in_channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(size, size))
        self.up = up

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        with full_precision(x):
            styles = self.affine(w)
            gains = demodulation(self.weight, styles)
        x = self._convolved(modulated(x, styles))
        # A leaky ReLU's gain commutes with it: here it is on what is small. Only the first step takes new memory.
        gains, biases, noise = (math.sqrt(2) * t for t in (gains, self.bias[None], self._noise(x)))
        gains, biases = (t.to(x.dtype)[:, :, None, None] for t in (gains, biases))
        return F.leaky_relu_(torch.addcmul(biases, x, gains).add_(noise.to(x.dtype)), SLOPE)

    def _convolved(self, x: Tensor) -> Tensor:
        if not self.up:
            return conv2d(x, self.weight, padding=1)
        return blur(conv_transpose2d(x, self.weight.transpose(0, 1), stride=2), 4 * KERNEL, padding=1)

    def _noise(self, x: Tensor) -> Tensor:
        """[N,1,S,S] in training, else [S,S]."""
        noise = randn(len(x), 1, *x.shape[2:]).to(x.device) if self.training else self.noise_const
        return noise * self.noise_strength


class ToImage(nn.Module):
    """x [N,in,S,S], w [N,w_dim] to what x adds to the picture [N,out,S,S]: a modulated 1x1 convolution and a bias.

    The sum of pictures is in float32 whatever autocast says.
    """

    def __init__(self, in_channels: int, out_channels: int, w_dim: int) -> None:
        super().__init__()
        self.affine = Linear(w_dim, in_channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        with full_precision(x):
            styles = self.affine(w) / math.sqrt(self.weight.shape[1])
        return conv2d(modulated(x, styles), self.weight).to(self.bias.dtype) + self.bias[:, None, None]


class SynthesisBlock(nn.Module):
    """x [N,in,S/2,S/2] and picture [N,C,S/2,S/2] to x [N,out,S,S] and picture [N,C,S,S]; in_channels 0 is the start."""

    def __init__(self, in_channels: int, out_channels: int, size: int, w_dim: int, image_channels: int) -> None:
        super().__init__()
        if in_channels:
            self.conv0 = StyledConv(in_channels, out_channels, size, w_dim, up=True)
        else:
            self.const = nn.Parameter(torch.randn(out_channels, size, size))
        self.conv1 = StyledConv(out_channels, out_channels, size, w_dim)
        self.torgb = ToImage(out_channels, image_channels, w_dim)

    def start(self, ws: Tensor) -> tuple[Tensor, Tensor]:
        """From the learnt constant, with two of ws [N,2,w_dim]."""
        x = self.conv1(self.const.expand(len(ws), -1, -1, -1), ws[:, 0])
        return x, self.torgb(x, ws[:, 1])

    def forward(self, x: Tensor, image: Tensor, ws: Tensor) -> tuple[Tensor, Tensor]:
        """ws: three, [N,3,w_dim]."""
        x = self.conv1(self.conv0(x, ws[:, 0]), ws[:, 1])
        return x, upsample(image, KERNEL) + self.torgb(x, ws[:, 2])


class Synthesis(nn.Module):
    """ws [N,num_ws,w_dim] to pictures [N,channels,S,S]: a block a resolution, of which each adds to the picture.

    A block's last w is also the next one's first.
    """

    b4: SynthesisBlock

    def __init__(self, *, size: int, channels: int, channel_base: int, channel_max: int, w_dim: int) -> None:
        super().__init__()
        self.sides = sides(size)
        self.num_ws = 2 * len(self.sides)
        width = 0
        for side in self.sides:
            wider, width = width, width_at(side, channel_base, channel_max)
            self.add_module(f"b{side}", SynthesisBlock(wider, width, side, w_dim, channels))

    def forward(self, ws: Tensor) -> Tensor:
        x, image = self.b4.start(ws[:, :2])
        for i, side in enumerate(self.sides[1:]):
            x, image = self.get_submodule(f"b{side}")(x, image, ws[:, 2 * i + 1 : 2 * i + 4])
        return image


class Generator(StyleGenerator):
    """z [N,num_z], c [N,num_classes] or None to pictures [N,channels,S,S].

    mixing: the probability with which a picture in training takes its later layers, from one drawn at random, from
    another w (arXiv:1812.04948, section 3.1). num_embed: the length of the classes' embedding (0: w_dim).
    """

    def __init__(
        self,
        *,
        size: int,
        channels: int = 3,
        num_classes: int = 0,
        channel_base: int = 32768,
        channel_max: int = 512,
        num_z: int = 512,
        w_dim: int = 512,
        num_mapping_layers: int = 8,
        num_embed: int = 0,
        mixing: float = 0.0,
    ) -> None:
        synthesis = Synthesis(
            size=size, channels=channels, channel_base=channel_base, channel_max=channel_max, w_dim=w_dim
        )
        mapping = StyleMapping(
            num_z,
            num_classes,
            w_dim,
            num_ws=synthesis.num_ws,
            num_layers=num_mapping_layers,
            num_embed=num_embed,
        )
        super().__init__(mapping, synthesis)
        self.mixing = mixing

    def styles(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """ws [N,num_ws,w_dim], mixed in training with draws from torch's global generator."""
        ws = self.mapping(z, c)
        if not (self.training and self.mixing):
            return ws
        num, num_ws = ws.shape[:2]
        mixed = rand(num, 1) < self.mixing
        first_others = torch.where(mixed, randint(1, num_ws, num, 1), num_ws)
        own = torch.arange(num_ws) < first_others
        others = self.mapping.unlearnt(randn(*z.shape).to(z), c)
        return torch.where(own[..., None].to(ws.device), ws, others[:, None])

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        return self.synthesis(self.styles(z, c))


class PathLength(nn.Module):
    """(length - their running mean)^2 of path lengths [N] (section 3.2, eq. 4); the mean is learnt on every pass."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, lengths: Tensor) -> Tensor:
        self.mean.lerp_(mean(lengths.detach().mean()), PATH_LENGTH_DECAY)
        return (lengths - self.mean).square()


@dataclass(frozen=True, kw_only=True)
class StyleGAN2Settings(Settings):
    """num_z to channel_max: G's shape as in Generator. From channel_base_d to num_deviations: D's as in Discriminator.

    Either of D's first two is G's where it is 0. gamma: R1's weight is half of it; None for 0.0002 size^2 / batch
    (arXiv:2006.06676, appendix C). mixing: as in Generator. path_length: the regularisation's weight, 0 for none.
    """

    num_z: int = 512
    w_dim: int = 512
    num_mapping_layers: int = 8
    num_embed: int = 0
    channel_base: int = 32768
    channel_max: int = 512
    channel_base_d: int = 0
    channel_max_d: int = 0
    architecture: Architecture = "resnet"
    num_mapping_layers_d: int = 8
    num_embed_d: int = 0
    num_cmap: int = 0
    group: int = 4
    num_deviations: int = 1
    lr: float = 0.002
    gamma: float | None = None
    mixing: float = 0.9
    path_length: float = 2.0


def build(settings: StyleGAN2Settings) -> dict[str, nn.Module]:
    """G and D, freshly initialised, and the running mean of path lengths. Raises UsageError as Discriminator does."""
    s = settings
    G = Generator(
        size=s.size,
        channels=s.channels,
        num_classes=s.num_classes,
        channel_base=s.channel_base,
        channel_max=s.channel_max,
        num_z=s.num_z,
        w_dim=s.w_dim,
        num_mapping_layers=s.num_mapping_layers,
        num_embed=s.num_embed,
        mixing=s.mixing,
    )
    D = Discriminator(
        size=s.size,
        channels=s.channels,
        num_classes=s.num_classes,
        channel_base=s.channel_base_d or s.channel_base,
        channel_max=s.channel_max_d or s.channel_max,
        architecture=s.architecture,
        num_mapping_layers=s.num_mapping_layers_d,
        num_embed=s.num_embed_d,
        num_cmap=s.num_cmap,
        group=s.group,
        num_deviations=s.num_deviations,
    )
    return {"G": G, "D": D, "path_length": PathLength(), **augmenting(s)}


def path_length_step(step: Step, weight: float) -> dict[str, Tensor]:
    """Path length regularisation on half a batch (appendix B), times its interval; values [N/2] but for "loss"."""
    G: Any = step.networks["G"]
    num = (len(step.x) + 1) // 2
    if whole(num) > (whole(len(step.x)) + 1) // 2:
        raise UsageError(
            f"batch: {whole(len(step.x))} cannot be halved in shares of {len(step.x)}; choose another batch"
        )
    ws = G.styles(step.z()[:num], None if step.c is None else step.c[:num])
    lengths = path_lengths(G.synthesis(ws), ws, step.generator)
    penalty = step.networks["path_length"](lengths)
    return {"loss": (PATH_LENGTH_INTERVAL * weight * penalty).mean(), "lengths": lengths, "penalty": penalty}


def phases(settings: StyleGAN2Settings) -> tuple[Phase, ...]:
    s = settings
    gamma = 0.0002 * s.size**2 / s.batch if s.gamma is None else s.gamma
    # G's rate is that of lazy steps also where path_length is 0, as in the official code.
    adam_d, adam_g = lazy_adam(s.lr, R1_INTERVAL), lazy_adam(s.lr, PATH_LENGTH_INTERVAL)
    r1 = Phase("D", adam_d, partial(r1_step, gamma=gamma), R1_INTERVAL, "D_reg")
    lengths = partial(path_length_step, weight=s.path_length)
    path_length = Phase("G", adam_g, lengths, PATH_LENGTH_INTERVAL, "G_reg", judged=False)
    return (
        Phase("D", adam_d, partial(discriminator_step, loss=non_saturating_d)),
        r1,
        Phase("G", adam_g, partial(generator_step, loss=non_saturating_g)),
        *([path_length] if s.path_length else []),
    )


def from_official(arguments: dict, tensors: dict[str, dict[str, Tensor]]) -> tuple[dict, dict]:
    """NVIDIA's .pkl files, of stylegan2-ada-pytorch and of stylegan3: shapes say all but the size of D's groups.

    Raises ValueError for filters, activations and learning rates that would give other outputs.
    """
    ours = {name: without_filters(official) for name, official in tensors.items()}
    for given in arguments.values():
        check_arguments(given)
    G, D = ours["G"], ours.get("D", {})
    widths = {int(key.split(".")[1][1:]): t.shape[0] for key, t in G.items() if key.endswith("conv1.bias")}
    fixed = {
        **mapping_shape(G),
        "size": max(widths),
        "channels": G["synthesis.b4.torgb.weight"].shape[0],
        "channel_base": max(side * width for side, width in widths.items()),
        "channel_max": max(widths.values()),
    }
    return fixed | (discriminator_shape(D, arguments["D"]) | discriminator_widths(D) if D else {}), ours


_FACES: dict[str, Any] = {"lr": 0.0025, "gamma": 1.0, "batch": 64, "group": 8, "total_nimg": 25_000_000}
_LIGHT: dict[str, Any] = {
    "num_z": 128,
    "w_dim": 128,
    "num_mapping_layers": 2,
    "num_mapping_layers_d": 2,
    "channel_base": 1024,
    "channel_max": 192,
    "batch": 8,
    "total_nimg": 1_000_000,
    "ema_halflife_nimg": Schedule(0, 5_000, 100_000, "linear"),  # a twentieth of the images shown
    "augment": "bgc",
    "channels_last": True,
}

SPEC = Spec(
    name="stylegan2",
    kind="image",
    paper="arXiv:1912.04958",
    year=2019,
    presets={
        "size32": StyleGAN2Settings(size=32, **_LIGHT),
        "size64": StyleGAN2Settings(size=64, **_LIGHT),
        "cifar10": StyleGAN2Settings(
            size=32,
            num_classes=10,
            num_mapping_layers=2,
            architecture="orig",
            group=32,
            lr=0.0025,
            gamma=0.01,
            mixing=0.0,
            path_length=0.0,
            batch=64,
            total_nimg=100_000_000,
            ema_halflife_nimg=Schedule(0, 500_000, 10_000_000, "linear"),
            augment="bgc",
        ),
        "paper256": StyleGAN2Settings(size=256, channel_base=16384, ema_halflife_nimg=20_000, augment="bgc", **_FACES),
        "ffhq256": StyleGAN2Settings(size=256, ema_halflife_nimg=20_000, augment="bgc", **_FACES),
        "ffhq1024": StyleGAN2Settings(size=1024, gamma=10.0, batch=32, total_nimg=25_000_000, ema_halflife_nimg=10_000),
        "tiny": StyleGAN2Settings(
            size=8,
            channels=1,
            num_classes=10,
            num_z=16,
            w_dim=16,
            num_mapping_layers=2,
            num_mapping_layers_d=2,
            channel_base=128,
            channel_max=32,
            lr=0.002,
            batch=16,
            total_nimg=20_000,
            ema_halflife_nimg=500,
        ),
    },
    build=build,
    phases=phases,
    num_z=lambda settings: settings.num_z,
    head=lambda D: D.b4.out,
    cross_entropy=1.0,
    holds=HOLDS,
    rename_official=lambda key: key,
    from_official=from_official,
)
