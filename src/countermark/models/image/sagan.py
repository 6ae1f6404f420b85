"""SAGAN: self-attention in G and D, and spectral normalisation in both (Zhang et al. 2019, arXiv:1805.08318).

Objective: hinge loss, one step of each, D learning four times as fast (sections 3 and 4). The residual networks, as in
the authors' code (brain-research/self-attention-gan), are in nn/residual.py, self-attention (at 32 px in the paper's
best network, table 1) in nn/attention.py. Classes: batch normalisation with a gain and a bias a class in G, a
projection in D; without classes neither.
Deviations: gains and biases of classes start as other weights do, not at 1 and 0; fakes are given the classes of the
reals; reals and fakes pass through D as one batch.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from countermark.core.spec import Adam, Phase, Spec
from countermark.losses.steps import hinge_phases
from countermark.nn.augmentation import augmenting
from countermark.nn.residual import HOLDS, LAPTOP, Discriminator, Generator, ResidualSettings, check_shape, initialise

SPECTRAL_EPS = 1e-12


def build(settings: ResidualSettings) -> dict[str, nn.Module]:
    """G and D, freshly initialised. Raises UsageError as `check_shape`."""
    s = settings
    check_shape("sagan", s)
    shape: dict[str, Any] = {"channels": s.channels, "num_classes": s.num_classes, "eps": SPECTRAL_EPS}
    G = Generator(num_z=s.num_z, widths=s.widths_g, attention=s.attention_g, **shape)
    D = Discriminator(widths=s.widths_d, attention=s.attention_d, **shape)
    for network in (G, D):
        initialise(network, "glorot")
    return {"G": G, "D": D, **augmenting(s)}


def phases(settings: ResidualSettings) -> tuple[Phase, ...]:
    s, adam = settings, partial(Adam, beta1=0.0, beta2=0.9)
    return hinge_phases(adam, s.lr_d, s.lr_g, s.num_d_steps)


SPEC = Spec(
    name="sagan",
    kind="image",
    paper="arXiv:1805.08318",
    year=2019,
    presets={
        "imagenet128": ResidualSettings(
            size=128,
            num_classes=1000,
            widths_g=(1024, 1024, 512, 256, 128, 64),
            widths_d=(64, 128, 256, 512, 1024, 1024),
            attention_g=(32,),
            attention_d=(32,),
            batch=256,
            total_nimg=1_000_000 * 256,
        ),
        "size32": ResidualSettings(
            size=32,
            widths_g=(128, 128, 64, 32),
            widths_d=(32, 64, 96, 96),
            attention_g=(16,),
            attention_d=(16,),
            **LAPTOP,
        ),
        "size64": ResidualSettings(
            size=64,
            widths_g=(128, 128, 64, 32, 16),
            widths_d=(16, 32, 64, 96, 96),
            attention_g=(32,),
            attention_d=(16,),
            **LAPTOP,
        ),
        "tiny": ResidualSettings(
            size=8,
            channels=1,
            num_classes=10,
            num_z=16,
            widths_g=(32, 16),
            widths_d=(16, 32),
            attention_g=(8,),
            attention_d=(4,),
            lr_g=5e-4,
            lr_d=5e-4,
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
