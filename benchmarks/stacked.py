"""The classic proof on pictures: how many of the 1,000 modes of stacked digits each method recovers.

A picture is three handwritten digits, one a colour, so a classifier of digits names its mode (arXiv:1611.02163, section
3.3.1). Digits are the generator's part of mnist5k; the classifier learns from the detector's. Every method has the
same processor time of one thread. A mode is recovered when one of 26,000 samples is in it; quality is the divergence
KL(p_g || uniform) of modes, in nats.

python -m benchmarks.stacked [--minutes 3] [--seeds 5] [--methods NAME ...]
"""

from __future__ import annotations

import argparse
import dataclasses

import numpy as np
import torch

from benchmarks import record
from benchmarks.modes import earlier, summary
from benchmarks.zoo_quality import ProcessorTime
from countermark.core.pixels import to_uint8
from countermark.core.seeds import latents
from countermark.core.spec import Settings, Spec
from countermark.data.image import PictureSet, load
from countermark.data.made import Stacked
from countermark.data.sources import open_source
from countermark.models import find
from countermark.perception.own import Own, load_own
from countermark.training.trainer import Trainer

SIDE, NUM_SAMPLES, BATCH = 32, 26_000, 500
# As small as the others are, and with the small batches that a CPU's few minutes ask for (docs/decisions.md).
R3GAN = {
    "widths": (64, 48, 32, 16),
    "cardinalities": (8, 6, 4, 2),
    "batch": 16,
    "lr": 5e-4,
    "beta2": 0.9,
    "gamma": 1.0,
    "ema_halflife_nimg": 0,
}
DCGAN = {"ngf": 24, "ndf": 8, "num_z": 64, "batch": 64, "lr": 2e-4, "ema_halflife_nimg": 0}


def method(name: str, preset: str, *cures: str, **changes: object) -> tuple[Spec, Settings]:
    spec = find(name)
    shape = {"size": SIDE, "channels": 3, "num_classes": 0, "cures": cures}
    return spec, dataclasses.replace(spec.presets[preset], **shape, **changes)


METHODS = {
    "dcgan": method("dcgan", "mnist32", **DCGAN),
    "dcgan, pacgan=2": method("dcgan", "mnist32", "pacgan=2", **{**DCGAN, "batch": 128}),
    "dcgan, minibatch_discrimination": method("dcgan", "mnist32", "minibatch_discrimination", **DCGAN),
    "dcgan, unrolled=2": method("dcgan", "mnist32", "unrolled=2", **DCGAN),
    "wgan_gp": method("wgan_gp", "size32"),
    "r3gan": method("r3gan", "mnist32", **R3GAN),
}


def modes_of(images: np.ndarray, judge: Own) -> np.ndarray:
    """The mode 0 .. 999 of each of images uint8 [N,S,S,3]."""
    digits = [judge.probabilities(images[..., i : i + 1]).argmax(1) for i in range(3)]
    return digits[0] * 100 + digits[1] * 10 + digits[2]


def train_one(spec: Spec, settings: Settings, digits: PictureSet, minutes: float, seed: int) -> tuple[Trainer, float]:
    """The trainer after so much processor time."""
    trainer, length = Trainer(spec, settings, Stacked(digits.images, seed), seed), ProcessorTime(60 * minutes)
    while length.fraction(trainer.nimg, 0) < 1:
        trainer.advance(None)
    return trainer, trainer.nimg


@torch.no_grad()
def samples_of(trainer: Trainer) -> np.ndarray:
    """uint8 [NUM_SAMPLES,S,S,3] of the averaged G."""
    G, z = trainer.averages["G"], latents(range(NUM_SAMPLES), trainer.num_z)
    return np.concatenate([to_uint8(G(part)) for part in z.split(BATCH)])


def divergence(modes: np.ndarray) -> float:
    """KL(p || uniform) of the modes' shares, in nats."""
    shares = np.bincount(modes, minlength=1000) / len(modes)
    return float((shares[shares > 0] * np.log(1000 * shares[shares > 0])).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    digits = load(open_source("mnist5k"), SIDE)
    part = digits.part("detector")
    judge = load_own(part.images, part.classes)
    command = f"python -m benchmarks.stacked --minutes {options.minutes:g} --seeds {options.seeds}"
    found = earlier("modes_stacked", command)
    for name in options.methods:
        runs = []
        for seed in range(options.seeds):
            trainer, nimg = train_one(*METHODS[name], digits.part("generator"), options.minutes, seed)
            modes = modes_of(samples_of(trainer), judge)
            runs.append((nimg, len(set(modes.tolist())), divergence(modes)))
            print(name, seed, *runs[-1], flush=True)
        found[name] = dict(zip(("images", "modes", "divergence"), map(list, zip(*runs, strict=True)), strict=True))
    rows = [
        [name, round(np.mean(one["images"])), summary(one["modes"], 0), summary(one["divergence"], 2)]
        for name, one in ((name, found[name]) for name in METHODS if name in found)
    ]
    header = ["method", "images", f"modes of 1,000: mean ± deviation over {options.seeds} seeds", "KL to uniform"]
    record.write("modes_stacked", command, header, rows, found=found)


if __name__ == "__main__":
    main()
