"""BigGAN: class-conditional G and D at scale (Brock et al. 2019, arXiv:1809.11096).

The networks are in nn/residual.py: conditional batch normalisation whose gain is 1 + W [e(y), z_i], with a chunk z_i of
the latents for every block and one class embedding e that all blocks share; spectral normalisation of every layer of G
and D, with epsilon 1e-6, but of that embedding; self-attention; a projection discriminator that sums over pixels after
the last ReLU. Objective: hinge loss (arXiv:1802.05957, eq. 16-17), and the orthogonal regularisation of G (eq. 3).
The average of G decays by .9999 a step from step 20,000 on, running statistics included (Spec.average_buffers); it is
what is sampled, in evaluation mode. Truncation is `sample --truncation`; standing statistics (appendix C) are
`Trained.with_standing_statistics`. Keys are those of ajbrock/BigGAN-PyTorch.
Without classes there is no embedding and no projection: the chunk of z alone conditions, or nothing where z is whole.

Deviations: where a batch is accumulated in parts, batch normalisation sees the whole batch, and its statistics and the
power iterations of spectral normalisation move once a batch, not once a part; fakes are given the classes of the reals,
not classes drawn anew; G's batch is D's; biases start at 0; the strength of the regularisation is the paper's, where
that code adds half the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from countermark.core.errors import UsageError
from countermark.core.spec import Adam, Phase, Scheduled, Spec
from countermark.losses.steps import hinge_phases
from countermark.nn.augmentation import augmenting
from countermark.nn.residual import (
    HOLDS,
    LAPTOP,
    Discriminator,
    Generator,
    Initialisation,
    ResidualSettings,
    biggan_average,
    biggan_widths,
    check_shape,
    initialise,
    num_of_blocks,
    rename_official,
    sides_down,
)

SPECTRAL_EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class BigGANSettings(ResidualSettings):
    """num_embed: length of the class embedding that all blocks share; 0 gives each normalisation one of its own.

    hierarchical: every block gets a chunk of z. orthogonal: strength of the orthogonal regularisation of G, 0 for none.
    """

    num_z: int = 120
    num_embed: int = 128
    hierarchical: bool = True
    init: Initialisation = "orthogonal"
    lr_g: Scheduled = 5e-5
    lr_d: Scheduled = 2e-4
    orthogonal: float = 0.0


def build(settings: BigGANSettings) -> dict[str, nn.Module]:
    """G and D, freshly initialised.

    Raises UsageError as `check_shape`, and when a hierarchical z does not fit the number of blocks.
    """
    s = settings
    check_shape("biggan", s)
    num_chunks = len(s.widths_g)
    if s.hierarchical and (s.num_z % num_chunks or (s.num_classes and not s.num_embed)):
        raise UsageError(
            f"biggan: hierarchical=true needs num_z={s.num_z} to be a multiple of {num_chunks}, and num_embed above 0; "
            "change them, or give hierarchical=false"
        )
    shape: dict[str, Any] = {"channels": s.channels, "num_classes": s.num_classes, "eps": SPECTRAL_EPS}
    G = Generator(
        num_z=s.num_z,
        widths=s.widths_g,
        attention=s.attention_g,
        hierarchical=s.hierarchical,
        num_embed=s.num_embed,
        **shape,
    )
    D = Discriminator(widths=s.widths_d, attention=s.attention_d, **shape)
    for network in (G, D):
        initialise(network, s.init)
    return {"G": G, "D": D, **augmenting(s)}


def phases(settings: BigGANSettings) -> tuple[Phase, ...]:
    s, adam = settings, partial(Adam, beta1=0.0, beta2=0.999, eps=1e-6)
    return hinge_phases(adam, s.lr_d, s.lr_g, s.num_d_steps, s.orthogonal)


def from_official(arguments: dict, tensors: dict[str, dict[str, Tensor]]) -> tuple[dict, dict]:
    """Checkpoints of ajbrock/BigGAN-PyTorch, which keep no constructor arguments: the shapes say everything.

    Without D its widths are taken to be G's, and it gets no attention.
    """
    ours = {name: {rename_official(key): t for key, t in official.items()} for name, official in tensors.items()}
    G, D = ours["G"], ours.get("D", {})
    num_blocks = num_of_blocks(G)
    first = [G[f"blocks.{i}.0.conv1.weight"].shape for i in range(num_blocks)]  # [out,in,3,3]
    widths_g = (first[0][1], *(shape[0] for shape in first))
    gain = G["blocks.0.0.bn1.gain.weight"].shape  # [out,num_embed+chunk], or [num_classes,out] where nothing is shared
    num_classes, num_embed = G["shared.weight"].shape if "shared.weight" in G else (gain[0], 0)
    hierarchical = num_embed > 0 and gain[1] > num_embed
    sides = sides_down(num_blocks)[1:]
    sides_d = {side for i, side in enumerate(sides) if f"blocks.{i}.1.gamma" in D}
    widths_d = tuple(D[f"blocks.{i}.0.conv2.weight"].shape[0] for i in range(num_of_blocks(D)))
    return {
        "size": 4 << num_blocks,
        "channels": G["output_layer.2.weight"].shape[0],
        "num_classes": num_classes,
        "num_z": G["linear.weight"].shape[1] * (len(widths_g) if hierarchical else 1),
        "num_embed": num_embed,
        "hierarchical": hierarchical,
        "widths_g": widths_g,
        "widths_d": widths_d or widths_g[::-1],
        "attention_g": tuple(8 << i for i in range(num_blocks) if f"blocks.{i}.1.gamma" in G),
        "attention_d": tuple(sorted(sides_d)),
    }, ours


def _imagenet(size: int, ch: int, *, num_z: int = 120, attention: int = 64) -> BigGANSettings:
    """The paper's recipe, with two steps of D to one of G and self-attention at `attention` pixels."""
    return BigGANSettings(
        size=size,
        num_classes=1000,
        num_z=num_z,
        **biggan_widths(size, ch, ch),
        attention_g=(attention,),
        attention_d=(attention,),
        batch=2048,
        accumulate=16,
        num_d_steps=2,
        orthogonal=1e-4,
        ema_halflife_nimg=biggan_average(2 * 2048, start=20_000),
        total_nimg=150_000 * 2 * 2048,
    )


SPEC = Spec(
    name="biggan",
    kind="image",
    paper="arXiv:1809.11096",
    year=2019,
    presets={
        "size32": BigGANSettings(
            size=32,
            num_z=64,
            num_embed=32,
            widths_g=(128, 128, 64, 32),
            widths_d=(32, 64, 96, 96),
            attention_g=(16,),
            attention_d=(16,),
            lr_g=2e-4,
            lr_d=4e-4,
            **LAPTOP,
        ),
        "size64": BigGANSettings(
            size=64,
            num_z=80,
            num_embed=32,
            widths_g=(128, 128, 64, 32, 16),
            widths_d=(16, 32, 64, 96, 96),
            attention_g=(32,),
            attention_d=(16,),
            lr_g=2e-4,
            lr_d=4e-4,
            **LAPTOP,
        ),
        "cifar10": BigGANSettings(  # the code's launch_cifar_ema: neither chunks of z nor a shared embedding
            size=32,
            num_classes=10,
            num_z=128,
            num_embed=0,
            hierarchical=False,
            init="normal",
            **biggan_widths(32, 64, 64),
            lr_g=2e-4,
            lr_d=2e-4,
            batch=50,
            num_d_steps=4,
            ema_halflife_nimg=biggan_average(4 * 50, start=1_000),
            total_nimg=500 * 50_000,
        ),
        "imagenet64": _imagenet(64, 64, attention=32),
        "imagenet128": _imagenet(128, 96),
        "imagenet128_ch64": _imagenet(128, 64),
        "imagenet256": _imagenet(256, 96, num_z=140),
        "tiny": BigGANSettings(
            size=8,
            channels=1,
            num_classes=10,
            num_z=16,
            num_embed=8,
            widths_g=(32, 16),
            widths_d=(16, 32),
            attention_g=(8,),
            attention_d=(4,),
            lr_g=5e-4,
            lr_d=5e-4,
            orthogonal=1e-4,
            batch=16,
            ema_halflife_nimg=500,
            total_nimg=20_000,
        ),
    },
    build=build,
    phases=phases,
    num_z=lambda settings: settings.num_z,
    head=lambda D: D.linear,
    holds={**HOLDS, "orthogonal": "orthogonal"},
    average_buffers=True,
    rename_official=rename_official,
    from_official=from_official,
)
