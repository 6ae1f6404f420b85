"""DCGAN: convolutional G and D with batch normalisation (Radford et al. 2016, arXiv:1511.06434).

Layout and keys (`main.N`) are those of PyTorch's example (pytorch/examples, dcgan), so its checkpoints load as they
are. Sizes other than 64 add or drop doublings in the middle. Classes, which the paper has not, enter as in conditional
GANs (arXiv:1411.1784): one-hot, appended to z in G and as constant planes to the picture in D.
Deviations: D returns logits (the sigmoid is in the loss); each phase draws its own fakes, where the example uses D's
fakes again for G's step.

Shapes: z [N,num_z], c [N,num_classes] one-hot, images [N,C,S,S] in [-1,1], logits [N].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from countermark.core.errors import UsageError
from countermark.core.spec import Adam, Phase, Schedule, Scheduled, Settings, Spec
from countermark.losses.adversarial import non_saturating_d, non_saturating_g
from countermark.losses.steps import discriminator_step, generator_step


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
        raise UsageError(f"dcgan: size {size} is not a power of two of at least 8; choose --size 8, 16, 32, 64, ...")
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
        z = z if c is None else torch.cat([z, c], 1)
        return self.main(z[:, :, None, None])


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
        if c is not None:
            planes = c[:, :, None, None].expand(-1, -1, *x.shape[-2:])
            x = torch.cat([x, planes], 1)
        return self.main(x).flatten()


@dataclass(frozen=True, kw_only=True)
class DCGANSettings(Settings):
    """num_z: length of z. ngf, ndf: base widths of G and D. label_smoothing: D's target for reals is 1 minus this."""

    num_z: int = 100
    ngf: int = 64
    ndf: int = 64
    lr: Scheduled = 2e-4
    label_smoothing: float = 0.0


def build(settings: DCGANSettings) -> dict[str, nn.Module]:
    """G and D, freshly initialised. Raises UsageError when size is not a power of two of at least 8."""
    s = settings
    return {
        "G": Generator(size=s.size, num_z=s.num_z, ngf=s.ngf, channels=s.channels, num_classes=s.num_classes),
        "D": Discriminator(size=s.size, ndf=s.ndf, channels=s.channels, num_classes=s.num_classes),
    }


def phases(settings: DCGANSettings) -> tuple[Phase, ...]:
    adam = Adam(settings.lr, beta1=0.5, beta2=0.999)
    smoothed_d = partial(non_saturating_d, smoothing=settings.label_smoothing)
    return (
        Phase("D", adam, partial(discriminator_step, loss=smoothed_d)),
        Phase("G", adam, partial(generator_step, loss=non_saturating_g)),
    )


SPEC = Spec(
    name="dcgan",
    kind="image",
    paper="arXiv:1511.06434",
    year=2016,
    presets={
        "dcgan64": DCGANSettings(size=64, batch=128, total_nimg=5_000_000),
        "mnist32": DCGANSettings(
            size=32,
            channels=1,
            num_classes=10,
            ngf=24,
            ndf=16,
            num_z=64,
            batch=16,  # many small steps: at equal cost far better samples than batches of 64 (docs/decisions.md)
            lr=Schedule(4e-4, 4e-5, 100_000),
            ema_halflife_nimg=2_000,
            total_nimg=100_000,
        ),
        "tiny": DCGANSettings(
            size=8, channels=1, ngf=32, ndf=64, num_z=16, batch=16, lr=5e-4, ema_halflife_nimg=1_000, total_nimg=40_000
        ),
    },
    build=build,
    phases=phases,
    num_z=lambda settings: settings.num_z,
    rename_official=lambda key: key,
)
