"""NPR: a detector that looks only at how each pixel relates to the neighbour that up-sampling would have copied.

Tan et al., "Rethinking the Up-Sampling Operations in CNN-based Generative Network for Generalizable Deepfake
Detection", CVPR 2024, arXiv:2312.10461. The input of a small ResNet (bottleneck blocks, arXiv:1512.03385, cut after
its second stage) is the residual

    NPR(x) = x - up(down(x, 1/2), 2),    both by nearest neighbour,

scaled by 2/3. Trained with binary cross-entropy by Adam (2e-4, batch 32), lr times .9 every ten epochs.

Deviations. Pictures are scaled to [-1,1] rather than by ImageNet's mean and deviation (a factor per channel, which the
first convolution and its normalisation absorb). Grey pictures go through a first convolution of one channel. The lr
falls by half a cosine instead of in steps. `small32` is narrower and keeps the resolution in its stem, since a 32 px
picture reduced four times leaves too little; it sees the pixels beside the residual, not to tell better but so that its
features can tell that a picture is of another kind: from the residual alone a quarter of photographs pass for digits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from countermark.core.spec import Adam, Phase, Schedule, Scheduled, Settings, Spec, Step

RESIDUAL_SCALE = 2 / 3
EXPANSION = 4


@dataclass(frozen=True, kw_only=True)
class NPRSettings(Settings):
    """width: channels of the stem. blocks: bottleneck blocks in the two stages.

    keep_resolution: the stem neither strides nor pools (for pictures of about 32 px). with_pixels: the first
    convolution also sees the pixels themselves, not the residual alone.
    """

    width: int = 64
    blocks: tuple[int, int] = (3, 4)
    keep_resolution: bool = False
    with_pixels: bool = False
    lr: Scheduled = 2e-4


def trim_even(x: Tensor) -> Tensor:
    """`x` [N,C,H,W] without its last row or column where their number is odd."""
    height, width = x.shape[-2:]
    return x[..., : height - height % 2, : width - width % 2]


def neighbouring_pixel_relationships(x: Tensor) -> Tensor:
    """x - up(down(x, 1/2), 2) of `x` [N,C,H,W] with even H and W: each 2 x 2 cell less its top left pixel."""
    kept = x[..., ::2, ::2]
    return x - kept.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)


class Bottleneck(nn.Module):
    """The residual block 1x1, 3x3 (strided), 1x1 with four times `width` channels out (arXiv:1512.03385, figure 5)."""

    def __init__(self, num_in: int, width: int, stride: int) -> None:
        super().__init__()
        num_out = width * EXPANSION
        self.conv1 = nn.Conv2d(num_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, num_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(num_out)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or num_in != num_out:
            self.downsample = nn.Sequential(nn.Conv2d(num_in, num_out, 1, stride, bias=False), nn.BatchNorm2d(num_out))

    def forward(self, x: Tensor) -> Tensor:
        y = nnf.relu(self.bn1(self.conv1(x)))
        y = nnf.relu(self.bn2(self.conv2(y)))
        return nnf.relu(self.bn3(self.conv3(y)) + self.downsample(x))


def _stage(num_in: int, width: int, num_blocks: int, stride: int) -> nn.Sequential:
    first = Bottleneck(num_in, width, stride)
    return nn.Sequential(first, *(Bottleneck(width * EXPANSION, width, 1) for _ in range(num_blocks - 1)))


class Detector(nn.Module):
    """F: pictures [N,C,H,W] in [-1,1] of any size from 8 px -> logits [N], higher is more synthetic."""

    def __init__(self, settings: NPRSettings) -> None:
        super().__init__()
        width, stride = settings.width, 1 if settings.keep_resolution else 2
        self.with_pixels = settings.with_pixels
        num_in = settings.channels * (2 if settings.with_pixels else 1)
        self.conv1 = nn.Conv2d(num_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.pool: nn.Module = nn.Identity() if settings.keep_resolution else nn.MaxPool2d(3, 2, 1)
        self.layer1 = _stage(width, width, settings.blocks[0], 1 if not settings.keep_resolution else 2)
        self.layer2 = _stage(width * EXPANSION, width * 2, settings.blocks[1], 2)
        self.head = nn.Linear(width * 2 * EXPANSION, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def feature_maps(self, x: Tensor) -> Tensor:
        """The last stage's output [N,K,h,w], K = 8 times the width."""
        x = trim_even(x)
        residual = RESIDUAL_SCALE * neighbouring_pixel_relationships(x)
        seen = torch.cat([residual, x], dim=1) if self.with_pixels else residual
        y = self.pool(nnf.relu(self.bn1(self.conv1(seen))))
        return self.layer2(self.layer1(y))

    def features(self, x: Tensor) -> Tensor:
        """What the last linear layer sees: the feature maps' mean over all places, [N,K]."""
        return self.feature_maps(x).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)).squeeze(1)


def build(settings: NPRSettings) -> dict[str, nn.Module]:
    return {"F": Detector(settings)}


def detector_phase(step: Step) -> dict[str, Tensor]:
    """Binary cross-entropy of F's logits against class 1 (synthetic) of the one-hot c [N,2] (real, synthetic)."""
    assert step.c is not None, "a detector trains on labelled pictures"
    synthetic = step.c[:, 1]
    logits = step.networks["F"](step.x)
    accuracy = ((logits > 0) == (synthetic > 0.5)).float().mean()
    loss = nnf.binary_cross_entropy_with_logits(logits, synthetic)
    return {"loss": loss, "accuracy": accuracy, "logits": logits.detach()}


def phases(settings: NPRSettings) -> tuple[Phase, ...]:
    return (Phase("F", Adam(settings.lr, beta1=0.9, beta2=0.999), detector_phase),)


def _official_key(key: str) -> str:
    return key.replace("fc1.", "head.")


SPEC = Spec(
    name="npr",
    kind="detect",
    paper="arXiv:2312.10461",
    year=2024,
    presets={
        "paper": NPRSettings(
            size=256, num_classes=2, batch=32, total_nimg=7_200_000, lr=Schedule(2e-4, 1e-6, 7_200_000)
        ),
        "small32": NPRSettings(
            size=32,
            channels=1,
            num_classes=2,
            batch=64,
            total_nimg=40_000,
            width=16,
            blocks=(1, 2),
            keep_resolution=True,
            with_pixels=True,
            lr=Schedule(1e-3, 1e-5, 40_000),
        ),
        "tiny": NPRSettings(size=8, num_classes=2, batch=8, total_nimg=64, width=4, blocks=(1, 1)),
    },
    build=build,
    phases=phases,
    averaged=(),
    rename_official=_official_key,
)
