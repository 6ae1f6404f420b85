"""SNGAN: a discriminator kept Lipschitz by spectral normalisation (Miyato et al. 2018, arXiv:1802.05957).

Objective: hinge loss (eq. 16-17), five steps of D to one of G. The residual networks of tables 3 and 4 are in
nn/residual.py; G has batch normalisation and no spectral normalisation. Classes: batch normalisation with a gain and a
bias a class in G, a projection in D (arXiv:1802.05637); without classes neither.
Deviations: gains and biases of classes start as other weights do, not at 1 and 0; G's batches are as large as D's, not
twice; fakes are given the classes of the reals; reals and fakes pass through D as one batch, so the power iteration
takes one step where the authors' code (pfnet-research/sngan_projection) takes two. 64 px has table 4 without its first
stage of D and last of G, at 128 px.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from countermark.core.spec import Adam, Phase, Schedule, Spec
from countermark.losses.steps import hinge_phases
from countermark.nn.augmentation import augmenting
from countermark.nn.residual import HOLDS, LAPTOP, Discriminator, Generator, ResidualSettings, check_shape, initialise

SPECTRAL_EPS = 1e-12


def build(settings: ResidualSettings) -> dict[str, nn.Module]:
    """G and D, freshly initialised. Raises UsageError as `check_shape`."""
    s = settings
    check_shape("sngan", s)
    shape: dict[str, Any] = {"channels": s.channels, "num_classes": s.num_classes}
    G = Generator(num_z=s.num_z, widths=s.widths_g, attention=s.attention_g, **shape)
    D = Discriminator(widths=s.widths_d, attention=s.attention_d, wide=False, eps=SPECTRAL_EPS, **shape)
    for network in (G, D):
        initialise(network, "glorot")
    return {"G": G, "D": D, **augmenting(s)}


def phases(settings: ResidualSettings) -> tuple[Phase, ...]:
    s, adam = settings, partial(Adam, beta1=0.0, beta2=0.9)
    return hinge_phases(adam, s.lr_d, s.lr_g, s.num_d_steps)


_CIFAR_NIMG = 50_000 * 5 * 64  # G's steps, D's to each, and the batch
_DECAY = Schedule(2e-4, 0.0, _CIFAR_NIMG, "linear")

SPEC = Spec(
    name="sngan",
    kind="image",
    paper="arXiv:1802.05957",
    year=2018,
    presets={
        "size32": ResidualSettings(
            size=32,
            widths_g=(128, 128, 64, 32),
            widths_d=(32, 64, 96, 96),
            lr_g=2e-4,
            lr_d=2e-4,
            num_d_steps=2,  # five leave too few steps of G in the minutes that a CPU has
            **LAPTOP,
        ),
        "size64": ResidualSettings(
            size=64,
            widths_g=(128, 128, 64, 32, 16),
            widths_d=(16, 32, 64, 96, 96),
            lr_g=2e-4,
            lr_d=2e-4,
            num_d_steps=2,
            **LAPTOP,
        ),
        "cifar10": ResidualSettings(
            size=32,
            num_classes=10,
            widths_g=(256,) * 4,
            widths_d=(128,) * 4,
            lr_g=_DECAY,
            lr_d=_DECAY,
            num_d_steps=5,
            total_nimg=_CIFAR_NIMG,
        ),
        "imagenet64": ResidualSettings(
            size=64,
            num_classes=1000,
            widths_g=(1024, 512, 256, 128, 64),
            widths_d=(64, 128, 256, 512, 1024),
            lr_g=2e-4,
            lr_d=2e-4,
            num_d_steps=5,
            total_nimg=250_000 * 5 * 64,
        ),
        "tiny": ResidualSettings(
            size=8,
            channels=1,
            num_classes=10,
            num_z=16,
            widths_g=(32, 16),
            widths_d=(16, 32),
            lr_g=5e-4,
            lr_d=5e-4,
            num_d_steps=2,
            batch=16,
            ema_halflife_nimg=500,
            total_nimg=20_000,
        ),
    },
    build=build,
    phases=phases,
    num_z=lambda settings: settings.num_z,
    head=lambda D: D.linear,
    holds=HOLDS,
    average_buffers=True,
)
