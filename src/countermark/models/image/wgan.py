"""Wasserstein GAN: a critic kept Lipschitz by clipped weights (Arjovsky et al. 2017, arXiv:1701.07875).

The critic's loss estimates minus the Wasserstein-1 distance (eq. 2-3); after every step its weights are clamped
(algorithm 1). Networks: DCGAN's (nn/dcgan.py), batch normalisation in the critic included, as in the authors' code
(martinarjovsky/WassersteinGAN), which gives the numbers too.
Deviation: always five steps of the critic; the code takes a hundred before each of G's first 25 steps and before every
500th.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from countermark.core.spec import Phase, RMSprop, Scheduled, Settings, Spec, Step
from countermark.losses.adversarial import wasserstein_d, wasserstein_g
from countermark.losses.penalties import clip_weights
from countermark.losses.steps import discriminator_step, generator_step
from countermark.nn.augmentation import augmenting
from countermark.nn.dcgan import Discriminator, Generator


@dataclass(frozen=True, kw_only=True)
class WGANSettings(Settings):
    """num_z: length of z. ngf, ndf: base widths of G and D.

    clip: bound of the critic's weights. num_critic: its steps to one of G.
    """

    num_z: int = 100
    ngf: int = 64
    ndf: int = 64
    lr: Scheduled = 5e-5
    clip: float = 0.01
    num_critic: int = 5


def build(settings: WGANSettings) -> dict[str, nn.Module]:
    """G and D, freshly initialised. Raises UsageError when size is not a power of two of at least 8."""
    s = settings
    return {
        "G": Generator(size=s.size, num_z=s.num_z, ngf=s.ngf, channels=s.channels, num_classes=s.num_classes),
        "D": Discriminator(size=s.size, ndf=s.ndf, channels=s.channels, num_classes=s.num_classes),
        **augmenting(s),
    }


def critic_step(step: Step) -> dict[str, Tensor]:
    """The critic's loss; "distance" is its estimate of the Wasserstein distance, up to a constant factor."""
    terms = discriminator_step(step, wasserstein_d)
    distance = terms["logits_real"] - terms["logits_fake"]
    # A critic is defined up to a constant, so the sign of its outputs says nothing; that of differences does.
    return {**terms, "distance": distance, "r_t": distance.sign()}


def phases(settings: WGANSettings) -> tuple[Phase, ...]:
    rmsprop = RMSprop(settings.lr)
    return (
        Phase("D", rmsprop, critic_step, after=partial(clip_weights, bound=settings.clip)),
        Phase("G", rmsprop, partial(generator_step, loss=wasserstein_g), interval=settings.num_critic),
    )


SPEC = Spec(
    name="wgan",
    kind="image",
    paper="arXiv:1701.07875",
    year=2017,
    presets={
        "lsun64": WGANSettings(size=64, batch=64, total_nimg=25 * 3_033_042),  # 25 times LSUN's bedrooms
        "tiny": WGANSettings(size=8, channels=1, ngf=32, ndf=32, num_z=16, batch=16, lr=5e-4, total_nimg=40_000),
    },
    build=build,
    phases=phases,
    num_z=lambda settings: settings.num_z,
    head=lambda D: D.main[-1],
    holds={"clip_weights": "clip", "critic_steps": "num_critic"},
)
