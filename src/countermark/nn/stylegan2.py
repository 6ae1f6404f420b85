"""The discriminator of StyleGAN2 (Karras et al. 2019, arXiv:1912.04958), which StyleGAN3 has too.

Parameters bear the official names. Widths follow from two numbers, as G's do: `width_at`.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from countermark.core.errors import UsageError
from countermark.core.precision import full_precision
from countermark.core.shares import gather, part, whole
from countermark.nn.activation import biased_leaky_relu
from countermark.nn.convolution import conv2d
from countermark.nn.resampling import KERNEL, blur, downsample
from countermark.nn.style import SLOPE, Linear, Mapping, leaky_relu

Architecture = Literal["resnet", "orig"]
HOLDS = {"r1": "gamma", "lazy_r1": "gamma", "minibatch_std": "num_deviations"}  # cures of its own (Spec.holds)


def sides(size: int) -> list[int]:
    """4, 8, ... size. Raises UsageError when size is none of these."""
    found = [4 << i for i in range(size.bit_length()) if 4 << i <= size]
    if not found or found[-1] != size:
        raise UsageError(f"size: {size} is not 4, 8, 16, 32, ... pixels; give a power of two")
    return found


def width_at(side: int, channel_base: int, channel_max: int) -> int:
    """Channels at `side` pixels. Raises UsageError when there are none."""
    width = min(channel_base // side, channel_max)
    if width < 1:
        raise UsageError(f"channel_base: {channel_base} leaves no channels at {side} pixels; give at least {side}")
    return width


class Conv(nn.Module):
    """gain * leaky ReLU of a convolution [N,in,H,W] to [N,out,H,W], or every second pixel of it with `down`.

    Weights are standard normal and scaled where they are used. With `down`, a low-pass filter comes first.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, *, down: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.down = down

    def forward(self, x: Tensor, gain: float = math.sqrt(2)) -> Tensor:
        # A positive factor commutes with a leaky ReLU, and is cheaper on weights than on pictures.
        weight = self.weight * (gain / math.sqrt(self.weight[0].numel()))
        padding = self.weight.shape[-1] // 2
        if self.down:
            x = conv2d(blur(x, KERNEL, padding + 1), weight, stride=2)
        else:
            x = conv2d(x, weight, padding=padding)
        return biased_leaky_relu(x, gain * self.bias, SLOPE)


class Skip(nn.Module):
    """gain * a 1x1 convolution of the halved picture: [N,in,H,W] to [N,out,H/2,W/2]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))

    def forward(self, x: Tensor, gain: float) -> Tensor:
        return conv2d(downsample(x, KERNEL), self.weight * (gain / math.sqrt(self.weight.shape[1])))


class DiscriminatorBlock(nn.Module):
    """[N,in,S,S] to [N,out,S/2,S/2]: two convolutions, with `skip` beside a 1x1 one, their sum of variance 1.

    image_channels: of the pictures that the first block turns into features; 0 in the others.
    """

    def __init__(self, in_channels: int, out_channels: int, *, skip: bool, image_channels: int = 0) -> None:
        super().__init__()
        self.fromrgb = Conv(image_channels, in_channels, 1) if image_channels else None
        self.conv0 = Conv(in_channels, in_channels)
        self.conv1 = Conv(in_channels, out_channels, down=True)
        self.skip = Skip(in_channels, out_channels) if skip else None

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.fromrgb is None else self.fromrgb(x)
        if self.skip is None:
            return self.conv1(self.conv0(x))
        return self.skip(x, math.sqrt(1 / 2)) + self.conv1(self.conv0(x), 1.0)  # sqrt(2) * sqrt(1/2)


def with_deviations(x: Tensor, group: int, num: int) -> Tensor:
    """x [N,C,H,W] with `num` more channels: deviations within groups of samples (arXiv:1710.10196, section 3).

    Each is the mean, over a share C / num of the channels and over all pixels, of the deviation within the group. A
    group are the samples n, n + N/g, n + 2N/g, ..., g being the largest divisor of N up to `group`.
    """
    total = whole(len(x))
    size = max(g for g in range(1, min(group, total) + 1) if total % g == 0)
    if len(x) % size:
        deviation = part(_deviations(gather(x), size, num))
    else:  # a group lies in one share
        deviation = _deviations(x, size, num)
    planes = deviation[:, :, None, None].expand(-1, -1, *x.shape[2:])
    return torch.cat([x, planes], 1)


def _deviations(x: Tensor, size: int, num: int) -> Tensor:
    """[N,num], in groups of `size`."""
    grouped = x.unflatten(0, (size, -1)).unflatten(2, (num, -1))  # [g,N/g,num,C/num,H,W]
    deviation = (grouped.var(0, correction=0) + 1e-8).sqrt().mean((2, 3, 4))  # [N/g,num]
    return deviation.repeat(size, 1)


class Epilogue(nn.Module):
    """[N,width,4,4] to [N,num_out], in float32."""

    def __init__(self, width: int, num_out: int, *, group: int, num_deviations: int) -> None:
        super().__init__()
        self.group, self.num_deviations = group, num_deviations
        self.conv = Conv(width + num_deviations, width)
        self.fc = Linear(width * 16, width)
        self.out = Linear(width, num_out)

    def forward(self, x: Tensor) -> Tensor:
        with full_precision(x):
            x = x.to(self.out.weight.dtype)
            if self.num_deviations:
                x = with_deviations(x, self.group, self.num_deviations)
            return self.out(leaky_relu(self.fc(self.conv(x).flatten(1))))


class Discriminator(nn.Module):
    """Pictures [N,channels,S,S], c [N,num_classes] or None to logits [N].

    architecture: "resnet" has skip connections in its blocks, "orig" none (section 4.1; CIFAR-10 in arXiv:2006.06676).
    Classes: the logit is the inner product with a mapping of c, over the root of its length num_cmap (0: the width at
    4 pixels); num_embed is the length of the mapping's embedding (0: num_cmap).
    group, num_deviations: of the minibatch's standard deviation (`with_deviations`; none where num_deviations is 0).
    Raises UsageError for sizes other than 8, 16, 32, ... for widths of 0, and deviations that do not divide them.
    """

    def __init__(
        self,
        *,
        size: int,
        channels: int = 3,
        num_classes: int = 0,
        channel_base: int = 32768,
        channel_max: int = 512,
        architecture: Architecture = "resnet",
        num_mapping_layers: int = 8,
        num_cmap: int = 0,
        num_embed: int = 0,
        group: int = 4,
        num_deviations: int = 1,
    ) -> None:
        super().__init__()
        self.sides = sides(size)[:0:-1]  # the full size down to 8
        if not self.sides:
            raise UsageError(f"size: {size} is too small; give 8, 16, 32, ... pixels")
        for side in self.sides:
            wide, narrow = (width_at(s, channel_base, channel_max) for s in (side, side // 2))
            image_channels = channels if side == size else 0
            block = DiscriminatorBlock(wide, narrow, skip=architecture == "resnet", image_channels=image_channels)
            self.add_module(f"b{side}", block)
        width = width_at(4, channel_base, channel_max)
        if num_deviations and width % num_deviations:
            raise UsageError(f"num_deviations: {num_deviations} does not divide {width} channels; give 1")
        num_cmap = (num_cmap or width) if num_classes else 0
        self.b4 = Epilogue(width, num_cmap or 1, group=group, num_deviations=num_deviations)
        self.mapping = None
        if num_classes:
            self.mapping = Mapping(0, num_classes, num_cmap, num_layers=num_mapping_layers, num_embed=num_embed)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        for side in self.sides:
            x = self.get_submodule(f"b{side}")(x)
        x = self.b4(x)
        return x[:, 0] if self.mapping is None else (x * self.mapping(None, c)).sum(1) / math.sqrt(x.shape[1])
