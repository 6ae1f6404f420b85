"""The networks of DCGAN (arXiv:1511.06434), which WGAN took over (arXiv:1701.07875, section 4.1).

Layout and keys (`main.N`) are those of PyTorch's example (pytorch/examples, dcgan). Sizes other than 64 add or drop
doublings in the middle. Classes, which neither paper has, enter one-hot, appended to z in G and as constant planes to
the picture in D.

Shapes: z [N,num_z], c [N,num_classes] one-hot, images [N,C,S,S] in [-1,1], logits [N].
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from countermark.core.errors import UsageError
from countermark.nn.conditioning import with_class_planes, with_classes


def _initialise(module: nn.Module) -> None:
    """Convolutions N(0, .02), batch normalisation gains N(1, .02) (section 4; the example's choice for the gains)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


def _num_doublings(size: int) -> int:
    """How often 4 is doubled to give `size`. Raises UsageError for sizes other than 8, 16, 32, ..."""
    doublings = size.bit_length() - 3
    if size < 8 or size != 4 << doublings:
        raise UsageError(f"size {size} is not a power of two of at least 8; choose --size 8, 16, 32, 64, ...")
    return doublings


class Generator(nn.Module):
    """z [N,num_z], c [N,num_classes] or None to images [N,channels,size,size]; ngf: channels before the last."""

    def __init__(self, *, size: int, num_z: int, ngf: int, channels: int = 3, num_classes: int = 0) -> None:
        super().__init__()
        widths = [ngf << i for i in reversed(range(_num_doublings(size)))]
        layers: list[nn.Module] = [nn.ConvTranspose2d(num_z + num_classes, widths[0], 4, 1, 0, bias=False)]
        for wider, width in pairwise(widths):
            layers += [nn.BatchNorm2d(wider), nn.ReLU(True), nn.ConvTranspose2d(wider, width, 4, 2, 1, bias=False)]
        layers += [
            nn.BatchNorm2d(ngf),
            nn.ReLU(True),
            nn.ConvTranspose2d(ngf, channels, 4, 2, 1, bias=False),
            nn.Tanh(),
        ]
        self.main = nn.Sequential(*layers)
        self.apply(_initialise)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        return self.main(with_classes(z, c)[:, :, None, None])


class Discriminator(nn.Module):
    """Images [N,channels,size,size], c [N,num_classes] or None to logits [N]; ndf: channels after the first layer."""

    def __init__(self, *, size: int, ndf: int, channels: int = 3, num_classes: int = 0) -> None:
        super().__init__()
        widths = [ndf << i for i in range(_num_doublings(size))]
        layers: list[nn.Module] = [nn.Conv2d(channels + num_classes, ndf, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)]
        for width, wider in pairwise(widths):
            layers += [nn.Conv2d(width, wider, 4, 2, 1, bias=False), nn.BatchNorm2d(wider), nn.LeakyReLU(0.2, True)]
        layers += [nn.Conv2d(widths[-1], 1, 4, 1, 0, bias=False)]
        self.main = nn.Sequential(*layers)
        self.apply(_initialise)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        return self.main(with_class_planes(x, c)).flatten()
