"""Small GANs on points in the plane: the methods that benchmarks/modes.py compares, as Specs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from countermark.core.spec import Adam, Phase, Scheduled, Settings, Spec
from countermark.losses.adversarial import non_saturating_d, non_saturating_g, wasserstein_g
from countermark.losses.steps import discriminator_step, generator_step
from countermark.models.image import r3gan, wgan_gp


class Generator(nn.Module):
    """z [N,num_z] to points [N,2,1,1]."""

    def __init__(self, num_z: int, width: int) -> None:
        super().__init__()
        hidden = [layer for _ in range(2) for layer in (nn.Linear(width, width), nn.ReLU())]
        self.layers = nn.Sequential(nn.Linear(num_z, width), nn.ReLU(), *hidden, nn.Linear(width, 2))

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        return self.layers(z)[:, :, None, None]


class Discriminator(nn.Module):
    """Points [N,channels,1,1] to logits [N]."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        hidden = [layer for _ in range(2) for layer in (nn.Linear(width, width), nn.LeakyReLU(0.2))]
        self.layers = nn.Sequential(nn.Linear(channels, width), nn.LeakyReLU(0.2), *hidden, nn.Linear(width, 1))

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        return self.layers(x.flatten(1))[:, 0]


@dataclass(frozen=True, kw_only=True)
class PointSettings(Settings):
    """lr, beta1: Adam's, of both networks; R3GAN and WGAN-GP have their papers' beta1. gamma: R3GAN's weight of its
    penalties, gradient_penalty: WGAN-GP's."""

    size: int = 1
    channels: int = 2
    batch: int = 256
    width: int = 128
    num_z: int = 2
    lr: Scheduled = 1e-3
    beta1: float = 0.5
    gamma: Scheduled = 0.1
    gradient_penalty: float = 0.1


def build(settings: PointSettings) -> dict[str, nn.Module]:
    return {
        "G": Generator(settings.num_z, settings.width),
        "D": Discriminator(settings.channels, settings.width),
    }


def vanilla(settings: PointSettings) -> tuple[Phase, ...]:
    adam = Adam(settings.lr, beta1=settings.beta1, beta2=0.999)
    return (
        Phase("D", adam, partial(discriminator_step, loss=non_saturating_d)),
        Phase("G", adam, partial(generator_step, loss=non_saturating_g)),
    )


def penalised_critic(settings: PointSettings) -> tuple[Phase, ...]:
    adam = Adam(settings.lr, beta1=0.0, beta2=0.9)
    return (
        Phase("D", adam, partial(wgan_gp.critic_step, gradient_penalty=settings.gradient_penalty)),
        Phase("G", adam, partial(generator_step, loss=wasserstein_g), interval=5),
    )


def regularised_relativistic(settings: PointSettings) -> tuple[Phase, ...]:
    adam = Adam(settings.lr, beta1=0.0, beta2=0.99)
    return (
        Phase("D", adam, partial(r3gan.discriminator_step, gamma=settings.gamma)),
        Phase("G", adam, r3gan.generator_step),
    )


SPEC = Spec(
    name="points",
    kind="image",
    paper="arXiv:1406.2661",
    year=2014,
    presets={"tiny": PointSettings()},
    build=build,
    phases=vanilla,
    num_z=lambda settings: settings.num_z,
    head=lambda D: D.layers[-1],
    cross_entropy=1.0,
)
WGAN_GP = dataclasses.replace(SPEC, name="wgan_gp", phases=penalised_critic, cross_entropy=0.0)
R3GAN = dataclasses.replace(SPEC, name="r3gan", phases=regularised_relativistic, cross_entropy=0.0)
