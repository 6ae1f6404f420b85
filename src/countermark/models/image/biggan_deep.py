"""BigGAN-deep: BigGAN with bottleneck blocks, deeper at fewer parameters (Brock et al. 2019, arXiv:1809.11096, B).

Blocks squeeze channels to a quarter between 1x1 convolutions. Shortcuts carry channels on as they are: G drops the last
ones, D adds the missing ones by a 1x1 convolution. The whole of z, joined with the class embedding that all blocks
share, enters the first layer and conditions every normalisation. D is the projection discriminator of nn/residual.py.
Everything else, deviations included, is as in biggan.py; without classes z alone conditions.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from countermark.core.spec import Adam, Phase, Scheduled, Spec
from countermark.losses.steps import hinge_phases
from countermark.nn.augmentation import augmenting
from countermark.nn.residual import (
    HOLDS,
    LAPTOP,
    Norm,
    ProjectionDiscriminator,
    ResidualSettings,
    attentive,
    biggan_average,
    biggan_widths,
    check_shape,
    conditional,
    initialise,
    num_of_blocks,
    rename_official,
    sides_down,
    through,
    to_image,
)
from countermark.nn.spectral import Conv2d, ConvUp, Embedding, Linear

SPECTRAL_EPS = 1e-6


class UpBottleneck(nn.Module):
    """[N,in,H,W] and a condition y to [N,out,H,W], or [N,out,2H,2W] where `up`; out is at most in."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm, *, up: bool) -> None:
        super().__init__()
        inner = in_channels // 4
        self.out_channels, self.up = out_channels, up
        self.bn1, self.bn2, self.bn3, self.bn4 = norm(in_channels), norm(inner), norm(inner), norm(inner)
        self.conv1 = Conv2d(in_channels, inner, 1, eps=SPECTRAL_EPS)
        self.conv2 = (ConvUp if up else Conv2d)(inner, inner, eps=SPECTRAL_EPS)
        self.conv3 = Conv2d(inner, inner, eps=SPECTRAL_EPS)
        self.conv4 = Conv2d(inner, out_channels, 1, eps=SPECTRAL_EPS)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        residual = self.conv1(self.bn1(x, y).relu())
        residual = self.conv2(self.bn2(residual, y).relu())
        residual = self.conv3(self.bn3(residual, y).relu())
        residual = self.conv4(self.bn4(residual, y).relu())
        kept = x[:, : self.out_channels]
        return residual + (F.interpolate(kept, scale_factor=2) if self.up else kept)


class DownBottleneck(nn.Module):
    """[N,in,H,W] to [N,out,H,W], or [N,out,H/2,W/2] where `down`; out is at least in."""

    def __init__(self, in_channels: int, out_channels: int, *, down: bool) -> None:
        super().__init__()
        inner = out_channels // 4
        self.down = down
        self.conv1 = Conv2d(in_channels, inner, 1, eps=SPECTRAL_EPS)
        self.conv2 = Conv2d(inner, inner, eps=SPECTRAL_EPS)
        self.conv3 = Conv2d(inner, inner, eps=SPECTRAL_EPS)
        self.conv4 = Conv2d(inner, out_channels, 1, eps=SPECTRAL_EPS)
        added = out_channels - in_channels
        self.conv_sc = Conv2d(in_channels, added, 1, eps=SPECTRAL_EPS) if added else None

    def forward(self, x: Tensor) -> Tensor:
        residual = self.conv1(x.relu())
        residual = self.conv3(self.conv2(residual.relu()).relu()).relu()
        if self.down:
            residual, x = F.avg_pool2d(residual, 2), F.avg_pool2d(x, 2)
        return self.conv4(residual) + (x if self.conv_sc is None else torch.cat([x, self.conv_sc(x)], 1))


class Generator(nn.Module):
    """z [N,num_z], c [N,num_classes] or None to images [N,channels,S,S], S = 4 * 2^(len(widths) - 1).

    widths: channels at 4, 8, ... S pixels, never growing. depth: blocks at each side, the last of which doubles it and
    narrows. attention: sides in pixels after whose blocks self-attention follows.
    """

    def __init__(
        self,
        *,
        num_z: int,
        widths: Sequence[int],
        depth: int = 2,
        attention: Collection[int] = (),
        num_embed: int = 128,
        channels: int = 3,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        self.shared = Embedding(num_classes, num_embed, eps=None) if num_classes else None
        num_condition = num_z + (num_embed if num_classes else 0)
        norm = conditional(num_condition, SPECTRAL_EPS)
        self.linear = Linear(num_condition, widths[0] * 16, eps=SPECTRAL_EPS)
        self.blocks = nn.ModuleList()
        for i, (width, narrower) in enumerate(pairwise(widths)):
            for _ in range(depth - 1):
                self.blocks.append(nn.ModuleList([UpBottleneck(width, width, norm, up=False)]))
            last = UpBottleneck(width, narrower, norm, up=True)
            self.blocks.append(nn.ModuleList(attentive([last], narrower, 8 << i, attention, SPECTRAL_EPS)))
        self.output_layer = to_image(widths[-1], channels, SPECTRAL_EPS)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        y = z if self.shared is None else torch.cat([self.shared(c), z], 1)
        x = self.linear(y).unflatten(1, (-1, 4, 4))
        return self.output_layer(through(self.blocks, x, [y] * len(self.blocks))).tanh()


class Discriminator(ProjectionDiscriminator):
    """Images [N,channels,S,S], c [N,num_classes] or None to logits [N], S = 4 * 2^(len(widths) - 1).

    widths: channels after the first convolution, then after each stage of `depth` blocks, never shrinking; the first
    block of a stage widens, and halves the side down to the last of `sides_down`.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int],
        depth: int = 2,
        attention: Collection[int] = (),
        channels: int = 3,
        num_classes: int = 0,
    ) -> None:
        super().__init__(widths[-1], num_classes, SPECTRAL_EPS)
        self.input_conv = Conv2d(channels, widths[0], eps=SPECTRAL_EPS)
        sides = sides_down(len(widths) - 1)
        self.blocks = nn.Sequential()
        for i, (width, wider) in enumerate(pairwise(widths)):
            first = DownBottleneck(width, wider, down=sides[i + 1] < sides[i])
            later = [DownBottleneck(wider, wider, down=False) for _ in range(depth - 1)]
            self.blocks.append(nn.Sequential(*attentive([first, *later], wider, sides[i + 1], attention, SPECTRAL_EPS)))

    def features(self, x: Tensor) -> Tensor:
        return self.blocks(self.input_conv(x))


@dataclass(frozen=True, kw_only=True)
class BigGANDeepSettings(ResidualSettings):
    """num_embed: length of the class embedding. depth_g, depth_d: blocks at each side.

    orthogonal: strength of the orthogonal regularisation of G, 0 for none.
    """

    num_embed: int = 128
    depth_g: int = 2
    depth_d: int = 2
    lr_g: Scheduled = 5e-5
    lr_d: Scheduled = 2e-4
    orthogonal: float = 0.0


def build(settings: BigGANDeepSettings) -> dict[str, nn.Module]:
    """G and D, freshly initialised. Raises UsageError as `check_shape`."""
    s = settings
    check_shape("biggan_deep", s)
    shape = {"channels": s.channels, "num_classes": s.num_classes}
    G = Generator(
        num_z=s.num_z, widths=s.widths_g, depth=s.depth_g, attention=s.attention_g, num_embed=s.num_embed, **shape
    )
    D = Discriminator(widths=s.widths_d, depth=s.depth_d, attention=s.attention_d, **shape)
    for network in (G, D):
        initialise(network, "orthogonal")
    return {"G": G, "D": D, **augmenting(s)}


def phases(settings: BigGANDeepSettings) -> tuple[Phase, ...]:
    s, adam = settings, partial(Adam, beta1=0.0, beta2=0.999, eps=1e-6)
    return hinge_phases(adam, s.lr_d, s.lr_g, s.num_d_steps, s.orthogonal)


def from_official(arguments: dict, tensors: dict[str, dict[str, Tensor]]) -> tuple[dict, dict]:
    """Checkpoints of ajbrock/BigGAN-PyTorch's BigGANdeep, which keep no arguments: the shapes say everything.

    G's shapes do not say where its blocks double the side: D's do, and without D a G of one width is that of 32 px and
    any other has two blocks a side, as the code trains no others.
    """
    ours = {name: {rename_official(key): t for key, t in official.items()} for name, official in tensors.items()}
    G, D = ours["G"], ours.get("D", {})
    num_blocks, num_stages = num_of_blocks(G), num_of_blocks(D)
    num_in = [G[f"blocks.{i}.0.conv1.weight"].shape[1] for i in range(num_blocks)]
    num_stages = num_stages or (3 if len(set(num_in)) == 1 else num_blocks // 2)
    depth = num_blocks // num_stages
    ends = range(depth - 1, num_blocks, depth)
    widths = (num_in[0], *(G[f"blocks.{i}.0.conv4.weight"].shape[0] for i in ends))
    sides_g = {8 << stage for stage, i in enumerate(ends) if f"blocks.{i}.1.gamma" in G}
    num_classes, num_embed = G["shared.weight"].shape
    fixed = {
        "size": 4 << num_stages,
        "channels": G["output_layer.2.weight"].shape[0],
        "num_classes": num_classes,
        "num_z": G["linear.weight"].shape[1] - num_embed,
        "num_embed": num_embed,
        "widths_g": widths,
        "depth_g": depth,
        "attention_g": tuple(sorted(sides_g)),
    }
    if not D:
        return {**fixed, "widths_d": widths[::-1], "depth_d": depth, "attention_d": ()}, ours
    depth_d = sum(key.startswith("blocks.0.") and key.endswith(".conv1.weight") for key in D)
    sides = sides_down(num_stages)
    sides_d = {sides[i + 1] for i in range(num_stages) if f"blocks.{i}.{depth_d}.gamma" in D}
    ends_d = (D[f"blocks.{i}.0.conv4.weight"].shape[0] for i in range(num_stages))
    return {
        **fixed,
        "widths_d": (D["input_conv.weight"].shape[0], *ends_d),
        "depth_d": depth_d,
        "attention_d": tuple(sorted(sides_d)),
    }, ours


SPEC = Spec(
    name="biggan_deep",
    kind="image",
    paper="arXiv:1809.11096",
    year=2019,
    presets={
        "imagenet128": BigGANDeepSettings(
            size=128,
            num_classes=1000,
            **biggan_widths(128, 128, 128),
            attention_g=(64,),
            attention_d=(64,),
            batch=2048,
            accumulate=16,
            num_d_steps=2,
            orthogonal=1e-4,
            ema_halflife_nimg=biggan_average(2 * 2048, start=20_000),
            total_nimg=150_000 * 2 * 2048,
        ),
        "size32": BigGANDeepSettings(
            size=32,
            num_z=64,
            num_embed=32,
            widths_g=(192, 192, 128, 64),
            widths_d=(64, 128, 192, 192),
            attention_g=(16,),
            attention_d=(16,),
            lr_g=2e-4,
            lr_d=4e-4,
            **LAPTOP,
        ),
        "size64": BigGANDeepSettings(
            size=64,
            num_z=64,
            num_embed=32,
            widths_g=(192, 192, 128, 64, 32),
            widths_d=(32, 64, 128, 192, 192),
            attention_g=(32,),
            attention_d=(16,),
            lr_g=2e-4,
            lr_d=4e-4,
            **LAPTOP,
        ),
        "tiny": BigGANDeepSettings(
            size=8,
            channels=1,
            num_classes=10,
            num_z=16,
            num_embed=8,
            widths_g=(64, 32),
            widths_d=(32, 64),
            attention_g=(8,),
            attention_d=(4,),
            lr_g=5e-4,
            lr_d=5e-4,
            orthogonal=1e-4,
            batch=16,
            ema_halflife_nimg=500,
            total_nimg=20_000,
        ),
    },
    build=build,
    phases=phases,
    num_z=lambda settings: settings.num_z,
    head=lambda D: D.linear,
    holds={**HOLDS, "orthogonal": "orthogonal"},
    average_buffers=True,
    rename_official=rename_official,
    from_official=from_official,
)
