"""The original GAN, fully connected, with a maxout D (Goodfellow et al. 2014, arXiv:1406.2661).

Follows the configuration that the authors published for MNIST (goodfeli/adversarial, mnist.yaml): uniform noise, two
hidden layers in each network, dropout in D (also during G's step), D's cost halved, stochastic gradient descent with
momentum. Classes, which the paper has not, are appended one-hot to the input of both networks (arXiv:1411.1784).
Deviations: z comes standard normal, as everywhere here, and G maps it to the noise's uniform law; the bias of G's last
layer starts at 0 instead of the logits of the data's mean; the learning rate falls on a straight line to where the
published exponential decay is after the 250 epochs in which momentum rises; G draws fresh z for its own step.

Shapes: z [N,num_z], c [N,num_classes] one-hot, images [N,C,S,S] in [-1,1], logits [N].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from countermark.core.spec import SGD, Phase, Schedule, Scheduled, Settings, Spec
from countermark.losses.adversarial import non_saturating_d, non_saturating_g
from countermark.losses.steps import discriminator_step, generator_step
from countermark.nn.augmentation import augmenting


def _linear(in_dims: int, out_dims: int, bound: float) -> nn.Linear:
    """Weights uniform in [-bound, bound], biases 0."""
    layer = nn.Linear(in_dims, out_dims)
    nn.init.uniform_(layer.weight, -bound, bound)
    nn.init.zeros_(layer.bias)
    return layer


class Generator(nn.Module):
    """z [N,num_z] standard normal, c [N,num_classes] or None to images [N,channels,size,size] in [-1,1]."""

    def __init__(self, *, size: int, num_z: int, num_hidden: int, channels: int = 1, num_classes: int = 0) -> None:
        super().__init__()
        self.shape = (channels, size, size)
        self.layers = nn.Sequential(
            _linear(num_z + num_classes, num_hidden, 0.05),
            nn.ReLU(),
            _linear(num_hidden, num_hidden, 0.05),
            nn.ReLU(),
            _linear(num_hidden, math.prod(self.shape), 0.05),
            nn.Sigmoid(),
        )

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        noise = math.sqrt(3) * torch.erf(z / math.sqrt(2))  # uniform in [-sqrt 3, sqrt 3], variance 1
        x = noise if c is None else torch.cat([noise, c], 1)
        return 2 * self.layers(x).unflatten(1, self.shape) - 1


class Maxout(nn.Module):
    """[N,in_dims] to [N,num_units], each the greatest of `num_pieces` affine functions (arXiv:1302.4389, eq. 1)."""

    def __init__(self, in_dims: int, num_units: int, num_pieces: int) -> None:
        super().__init__()
        self.num_pieces = num_pieces
        self.affine = _linear(in_dims, num_units * num_pieces, 0.005)

    def forward(self, x: Tensor) -> Tensor:
        return self.affine(x).unflatten(1, (-1, self.num_pieces)).amax(2)


class Discriminator(nn.Module):
    """Images [N,channels,size,size], c [N,num_classes] or None to logits [N].

    In training mode 20% of the inputs and half of the hidden units are dropped.
    """

    def __init__(self, *, size: int, num_units: int, num_pieces: int, channels: int = 1, num_classes: int = 0) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Dropout(0.2),
            Maxout(channels * size * size + num_classes, num_units, num_pieces),
            nn.Dropout(0.5),
            Maxout(num_units, num_units, num_pieces),
            nn.Dropout(0.5),
            _linear(num_units, 1, 0.005),
        )

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        x = (x.flatten(1) + 1) / 2
        return self.layers(x if c is None else torch.cat([x, c], 1))[:, 0]


@dataclass(frozen=True, kw_only=True)
class GANSettings(Settings):
    """num_hidden: width of G's layers. num_units, num_pieces: D's maxout units and affine pieces in each."""

    num_z: int = 100
    num_hidden: int = 1200
    num_units: int = 240
    num_pieces: int = 5
    lr: Scheduled = 0.1
    momentum: Scheduled = 0.5


def build(settings: GANSettings) -> dict[str, nn.Module]:
    """G and D, freshly initialised."""
    s = settings
    shape = {"size": s.size, "channels": s.channels, "num_classes": s.num_classes}
    return {
        "G": Generator(num_z=s.num_z, num_hidden=s.num_hidden, **shape),
        "D": Discriminator(num_units=s.num_units, num_pieces=s.num_pieces, **shape),
        **augmenting(s),
    }


def halved_d(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """Half the cross entropy of D on reals and fakes (algorithm 1; the half is the published code's)."""
    return non_saturating_d(logits_real, logits_fake) / 2


def phases(settings: GANSettings) -> tuple[Phase, ...]:
    sgd = SGD(settings.lr, settings.momentum)
    return (
        Phase("D", sgd, partial(discriminator_step, loss=halved_d)),
        Phase("G", sgd, partial(generator_step, loss=non_saturating_g)),
    )


_EPOCHS_NIMG = 250 * 50_000  # momentum rises over 250 epochs of MNIST's first 50,000 images
_DECAY = 1.000004 ** -(_EPOCHS_NIMG // 100)  # of the learning rate by then: once per batch of 100

SPEC = Spec(
    name="gan",
    kind="image",
    paper="arXiv:1406.2661",
    year=2014,
    presets={
        "mnist": GANSettings(
            size=28,
            channels=1,
            batch=100,
            lr=Schedule(0.1, 0.1 * _DECAY, _EPOCHS_NIMG, "linear"),
            momentum=Schedule(0.5, 0.7, _EPOCHS_NIMG, "linear"),
            total_nimg=_EPOCHS_NIMG,
        ),
        "tiny": GANSettings(
            size=8, channels=1, num_z=16, num_hidden=64, num_units=32, num_pieces=3, batch=32, total_nimg=20_000
        ),
    },
    build=build,
    phases=phases,
    num_z=lambda settings: settings.num_z,
    head=lambda D: D.layers[-1],
    cross_entropy=0.5,
)
