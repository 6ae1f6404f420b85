"""The residual networks of SNGAN (arXiv:1802.05957), SAGAN (arXiv:1805.08318) and BigGAN (arXiv:1809.11096).

Each paper adds to the one before: SNGAN's residual G with D under spectral normalisation and projection onto classes
(arXiv:1802.05637); SAGAN's self-attention, with spectral normalisation in G too; BigGAN's hierarchical latents and
shared class embedding. Names of layers are those of BigGAN's code (ajbrock/BigGAN-PyTorch).

Convolutions that stand beside a resampling change places with it where that costs less and gives the same numbers.

Shapes: z [N,num_z], c [N,num_classes] one-hot, images [N,C,S,S] in [-1,1], logits [N].
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from countermark.core.errors import UsageError
from countermark.core.precision import full_precision
from countermark.core.spec import Schedule, Scheduled, Settings
from countermark.nn.attention import SelfAttention
from countermark.nn.normalisation import BatchNorm, ConditionalBatchNorm
from countermark.nn.spectral import Conv2d, ConvDown, ConvUp, Embedding, Linear

Initialisation = Literal["glorot", "orthogonal", "normal"]
Norm = Callable[[int], nn.Module]


def initialise(network: nn.Module, how: Initialisation) -> None:
    """Every weight matrix, embeddings included; biases 0.

    glorot: uniform of variance 2 / (fan in + fan out), twice that in the residual branches (SNGAN's code);
    orthogonal: BigGAN (arXiv:1809.11096, section 3); normal: of deviation .02 (BigGAN's code on CIFAR).
    """
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            if how == "glorot":
                nn.init.xavier_uniform_(parameter, math.sqrt(2) if ".conv1." in name or ".conv2." in name else 1.0)
            elif how == "orthogonal":
                nn.init.orthogonal_(parameter)
            else:
                nn.init.normal_(parameter, 0.0, 0.02)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


def conditional(num_condition: int, eps: float | None) -> Norm:
    """Batch normalisation by linear maps from a condition; a plain one where there is nothing to follow."""
    if not num_condition:
        return BatchNorm
    return partial(ConditionalBatchNorm, layer=lambda channels: Linear(num_condition, channels, eps=eps, bias=False))


def by_class(num_classes: int) -> Norm:
    """Batch normalisation with a gain and a bias for each class; a plain one without classes."""
    if not num_classes:
        return BatchNorm
    return partial(ConditionalBatchNorm, layer=lambda channels: Embedding(num_classes, channels, eps=None))


def attentive(
    blocks: Sequence[nn.Module], channels: int, side: int, sides: Collection[int], eps: float | None
) -> list[nn.Module]:
    """`blocks`, which put out `channels` at `side` pixels, and self-attention after them where `sides` says so."""
    return [*blocks, SelfAttention(channels, eps=eps)] if side in sides else [*blocks]


def through(stages: nn.ModuleList, x: Tensor, conditions: Iterable[Tensor | None]) -> Tensor:
    """G's stages, each a block that sees a condition and self-attention that does not, if it is there."""
    for stage, condition in zip(stages, conditions, strict=True):
        block, *attention = stage.children()
        x = block(x, condition)
        for layer in attention:
            x = layer(x)
    return x


def to_image(width: int, channels: int, eps: float | None) -> nn.Sequential:
    """G's end, up to the tanh."""
    return nn.Sequential(BatchNorm(width), nn.ReLU(), Conv2d(width, channels, eps=eps))


class UpBlock(nn.Module):
    """[N,in,H,W] and a condition y to [N,out,2H,2W]: normalisation and ReLU before each convolution, a 1x1 shortcut."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm, eps: float | None) -> None:
        super().__init__()
        self.bn1, self.bn2 = norm(in_channels), norm(out_channels)
        self.conv1 = ConvUp(in_channels, out_channels, eps=eps)
        self.conv2 = Conv2d(out_channels, out_channels, eps=eps)
        self.conv_sc = Conv2d(in_channels, out_channels, 1, eps=eps)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        residual = self.conv1(self.bn1(x, y).relu())
        residual = self.conv2(self.bn2(residual, y).relu())
        return residual + F.interpolate(self.conv_sc(x), scale_factor=2)


class DownBlock(nn.Module):
    """[N,in,H,W] to [N,out,H/2,W/2] (`down`) or [N,out,H,W]; x are pictures where `first`, else ReLU comes first.

    wide: whether the first convolution widens already (SAGAN, BigGAN), or the second does (SNGAN).
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, down: bool, first: bool, wide: bool, eps: float | None
    ) -> None:
        super().__init__()
        inner = out_channels if wide or first else in_channels
        self.first, self.down = first, down
        self.conv1 = Conv2d(in_channels, inner, eps=eps)
        self.conv2 = (ConvDown if down else Conv2d)(inner, out_channels, eps=eps)
        learnt = down or in_channels != out_channels
        self.conv_sc = Conv2d(in_channels, out_channels, 1, eps=eps) if learnt else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        residual = self.conv2(self.conv1(x if self.first else x.relu()).relu())
        return residual + self.conv_sc(F.avg_pool2d(x, 2) if self.down else x)


class Generator(nn.Module):
    """z, c to images, S = 4 * 2^(len(widths) - 1).

    widths: channels at 4, 8, ... S pixels. attention: sides in pixels after whose blocks self-attention follows.
    hierarchical: z comes in one chunk for the first layer and one for each block, which conditions its normalisation
    (num_z is a multiple of their number). num_embed: length of the class embedding that all blocks share; 0 gives each
    normalisation a gain and a bias for each class. Without classes only the chunk of z conditions, or nothing does.
    """

    def __init__(
        self,
        *,
        num_z: int,
        widths: Sequence[int],
        attention: Collection[int] = (),
        hierarchical: bool = False,
        num_embed: int = 0,
        channels: int = 3,
        num_classes: int = 0,
        eps: float | None = None,
    ) -> None:
        super().__init__()
        self.num_chunk = num_z // len(widths) if hierarchical else num_z
        num_embed = num_embed if num_classes else 0
        self.shared = Embedding(num_classes, num_embed, eps=None) if num_embed else nn.Identity()
        own = num_classes and not num_embed
        norm = by_class(num_classes) if own else conditional(num_embed + self.num_chunk * hierarchical, eps)
        self.linear = Linear(self.num_chunk, widths[0] * 16, eps=eps)
        self.blocks = nn.ModuleList(
            nn.ModuleList(attentive([UpBlock(*pair, norm, eps)], pair[1], 8 << i, attention, eps))
            for i, pair in enumerate(pairwise(widths))
        )
        self.output_layer = to_image(widths[-1], channels, eps)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        first, *chunks = z.split(self.num_chunk, 1)
        x = self.linear(first).unflatten(1, (-1, 4, 4))
        y = None if c is None else self.shared(c)
        conditions = [chunk if y is None else torch.cat([y, chunk], 1) for chunk in chunks] or [y] * len(self.blocks)
        return self.output_layer(through(self.blocks, x, conditions)).tanh()


class ProjectionDiscriminator(nn.Module, ABC):
    """Images, c to logits: with h [N,width] the sum over pixels of features after ReLU, linear(h) + embed(c) . h.

    The projection discriminator of arXiv:1802.05637, eq. 3; without classes the second term is left out.
    """

    def __init__(self, width: int, num_classes: int, eps: float | None) -> None:
        super().__init__()
        self.linear = Linear(width, 1, eps=eps)
        self.embed = Embedding(num_classes, width, eps=eps) if num_classes else None

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Images to [N,width,H,W]."""

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        h = self.features(x).relu().to(self.linear.weight.dtype).sum((2, 3))
        with full_precision(x):  # a sum of many bfloat16 is one of few digits
            logits = self.linear(h)[:, 0]
            return logits if self.embed is None else logits + (self.embed(c) * h).sum(1)


class Discriminator(ProjectionDiscriminator):
    """widths: channels after each block, S = 4 * 2^(len(widths) - 1); see `sides_down`, DownBlock and Generator."""

    def __init__(
        self,
        *,
        widths: Sequence[int],
        attention: Collection[int] = (),
        wide: bool = True,
        channels: int = 3,
        num_classes: int = 0,
        eps: float | None = None,
    ) -> None:
        super().__init__(widths[-1], num_classes, eps)
        sides = sides_down(len(widths) - 1)
        self.blocks = nn.Sequential()
        for i, (width, wider) in enumerate(pairwise((channels, *widths))):
            block = DownBlock(width, wider, down=sides[i + 1] < sides[i], first=i == 0, wide=wide, eps=eps)
            self.blocks.append(nn.Sequential(*attentive([block], wider, sides[i + 1], attention, eps)))

    def features(self, x: Tensor) -> Tensor:
        return self.blocks(x)


def sides_down(num_doublings: int) -> list[int]:
    """D's sides in pixels, before the first block and after each, for pictures of 4 * 2^num_doublings pixels a side.

    Blocks halve down to 4 px; from sides of 32, as CIFAR's, and of 16 down to 8 px only.
    """
    size = 4 << num_doublings
    smallest = 8 if size in (16, 32) else 4
    return [max(size >> i, smallest) for i in range(num_doublings + 2)]


@dataclass(frozen=True, kw_only=True)
class ResidualSettings(Settings):
    """widths_g: G's channels from 4 px upwards. widths_d: D's, from the full size down.

    attention_g, attention_d: sides in pixels after whose blocks self-attention follows.
    num_d_steps: steps of D to one of G.
    """

    num_z: int = 128
    widths_g: tuple[int, ...]
    widths_d: tuple[int, ...]
    attention_g: tuple[int, ...] = ()
    attention_d: tuple[int, ...] = ()
    lr_g: Scheduled = 1e-4
    lr_d: Scheduled = 4e-4
    num_d_steps: int = 1


# The cures that these models have of their own (Spec.holds).
HOLDS = {"spectral_norm": "", "ttur": "lr_d", "critic_steps": "num_d_steps"}

# What the presets that a laptop trains have in common: in the hours that it has, steps are what is short
# (docs/decisions.md), and the average lasts for a twentieth of the images shown.
LAPTOP: dict[str, Any] = {
    "batch": 16,
    "ema_halflife_nimg": Schedule(0, 10_000, 200_000, "linear"),
    "total_nimg": 1_000_000,
    "channels_last": True,
}


def check_shape(name: str, settings: ResidualSettings) -> None:
    """Raises UsageError when the numbers of widths do not fit the size, or no block has a side of attention."""
    num_g, num_d = len(settings.widths_g), len(settings.widths_d)
    if num_g != num_d or num_g < 2 or settings.size != 4 << (num_g - 1):
        raise UsageError(
            f"{name}: size {settings.size} does not fit {num_g} widths_g and {num_d} widths_d; give 2 of each for "
            "8 px, 3 for 16, 4 for 32, ..."
        )
    sides = {"attention_g": {8 << i for i in range(num_g - 1)}, "attention_d": {*sides_down(num_g - 1)[1:]}}
    for word, known in sides.items():
        if unknown := {*getattr(settings, word)} - known:
            choice = ", ".join(map(str, sorted(known)))
            raise UsageError(f"{name}: {word}={min(unknown)} is no block's side; choose from {choice}")


# Multiples of BigGAN's base widths: G's from 4 px upwards, D's from the full size down (arXiv:1809.11096, appendix B;
# at 32 and 64 px as in the authors' code). BigGAN-deep has the same.
_MULTIPLES = {
    32: ((4, 4, 4, 4), (4, 4, 4, 4)),
    64: ((16, 16, 8, 4, 2), (1, 2, 4, 8, 16)),
    128: ((16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16, 16)),
    256: ((16, 16, 8, 8, 4, 2, 1), (1, 2, 4, 8, 8, 16, 16)),
}


def biggan_widths(size: int, ch_g: int, ch_d: int) -> dict[str, Any]:
    """`widths_g` and `widths_d` for base widths of G and D."""
    multiples_g, multiples_d = _MULTIPLES[size]
    return {"widths_g": tuple(ch_g * m for m in multiples_g), "widths_d": tuple(ch_d * m for m in multiples_d)}


def biggan_average(nimg: int, *, start: int) -> Schedule:
    """The half-life of an average that decays by .9999 a step of G, of `nimg` images, from step `start` on."""
    return Schedule(0, nimg * math.log(0.5) / math.log(0.9999), start * nimg, "step")


# Endings of official keys, and ours.
_OFFICIAL = {
    "u0": "spectral.u",
    "sv0": "spectral.sv",
    "stored_mean": "norm.running_mean",
    "stored_var": "norm.running_var",
    "output_layer.0.gain": "output_layer.0.weight",
    "output_layer.0.stored_mean": "output_layer.0.running_mean",
    "output_layer.0.stored_var": "output_layer.0.running_var",
}


def rename_official(key: str) -> str:
    """A key of ajbrock/BigGAN-PyTorch's state dicts (without G. or D.) in our words."""
    path, _, leaf = key.rpartition(".")
    return _OFFICIAL.get(key) or f"{path}.{_OFFICIAL.get(leaf, leaf)}"


def num_of_blocks(state: Mapping[str, Tensor]) -> int:
    """How many entries `blocks` has in a state dict."""
    return len({key.split(".")[1] for key in state if key.startswith("blocks.")})
