"""DCGAN: convolutional G and D with batch normalisation (Radford et al. 2016, arXiv:1511.06434).

The networks are in nn/dcgan.py; their keys are those of PyTorch's example (pytorch/examples, dcgan), so its checkpoints
load as they are.
Deviations: D returns logits (the sigmoid is in the loss); each phase draws its own fakes, where the example uses D's
fakes again for G's step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from countermark.core.spec import Adam, Phase, Schedule, Scheduled, Settings, Spec
from countermark.losses.adversarial import non_saturating_d, non_saturating_g
from countermark.losses.steps import discriminator_step, generator_step
from countermark.nn.augmentation import augmenting
from countermark.nn.dcgan import Discriminator, Generator


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
        **augmenting(s),
    }


def phases(settings: DCGANSettings) -> tuple[Phase, ...]:
    adam = Adam(settings.lr, beta1=0.5, beta2=0.999)
    smoothed_d = partial(non_saturating_d, smoothing=settings.label_smoothing)
    return (
        Phase("D", adam, partial(discriminator_step, loss=smoothed_d)),
        Phase("G", adam, partial(generator_step, loss=non_saturating_g)),
    )


def from_official(arguments: dict, tensors: dict[str, dict[str, Tensor]]) -> tuple[dict, dict]:
    """The example's checkpoints: its files are state dicts, but the shapes say everything."""
    convolutions = {int(key.split(".")[1]): w for key, w in tensors["G"].items() if w.dim() == 4}
    weights = [convolutions[i] for i in sorted(convolutions)]
    ngf, channels = weights[-1].shape[:2]
    return {
        "size": 2 << len(weights),
        "num_z": weights[0].shape[0],
        "ngf": ngf,
        "ndf": tensors["D"]["main.0.weight"].shape[0] if "D" in tensors else ngf,
        "channels": channels,
        "num_classes": 0,
    }, tensors


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
    head=lambda D: D.main[-1],
    cross_entropy=1.0,
    holds={"label_smoothing": "label_smoothing"},
    rename_official=lambda key: key,
    from_official=from_official,
)
