"""Does torch.compile pay? Images a second with and without `--compile`, and how long the first batches take.

Both trainers stand side by side and are measured in turn, in one thread; the better round of each counts. A round has
as many batches as the longest interval of the model's phases, and takes a few seconds at least; every phase has run
before. The last column holds the first batches, too, and is shorter where torch's cache knows what is compiled.

python -m benchmarks.compiled [--models stylegan2:size32 ...] [--rounds 3] [--device cpu]
"""

from __future__ import annotations

import argparse
import dataclasses
import time

import torch

from benchmarks import record
from benchmarks.speed import Noise
from countermark.core.spec import Settings
from countermark.models import find
from countermark.training.compiled import check_compiler
from countermark.training.distributed import Ranks
from countermark.training.trainer import Trainer

MODELS = (
    "gan:mnist",
    "dcgan:dcgan64",
    "wgan_gp:size32",
    "sngan:size32",
    "biggan:size32",
    "stylegan2:size32",
    "r3gan:size32",
)
BATCH = 32
SECONDS = 4.0  # of a round, at least
WAYS = ("", "inductor")


def batches(trainer: Trainer, settings: Settings, seconds: float = SECONDS) -> float:
    """Images a second of a round."""
    every = max(phase.interval for phase in trainer.phases)
    num, start = 0, time.perf_counter()
    while num == 0 or time.perf_counter() - start < seconds:
        for _ in range(every):
            trainer.advance(None)
        num += every * settings.batch
    return num / (time.perf_counter() - start)


def measure(model: str, device: torch.device, rounds: int) -> tuple[float, float, float]:
    """Images a second without and with the compiler, and the seconds until everything was compiled."""
    name, _, preset = model.partition(":")
    spec = find(name)
    settings = dataclasses.replace(spec.presets[preset], batch=BATCH)
    trainers = [Trainer(spec, settings, Noise(settings), 0, Ranks(device=device), compiler=way) for way in WAYS]
    start = time.perf_counter()
    for seconds in (0, SECONDS):  # new shapes and strides come up after the rarest phase has run
        batches(trainers[1], settings, seconds)
    elapsed = time.perf_counter() - start
    found = [[batches(trainer, settings) for trainer in trainers] for _ in range(rounds)]
    eager, compiled = (max(rates) for rates in zip(*found, strict=True))
    return eager, compiled, elapsed - SECONDS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(options.device)
    check_compiler(device)
    rows = []
    for model in options.models:
        eager, compiled, seconds = measure(model, device, options.rounds)
        rows.append([model, eager, compiled, compiled / eager, seconds])
        print(rows[-1], flush=True)
    header = ["model", "images/s", "images/s, compiled", "ratio", "seconds until all was compiled"]
    command = f"python -m benchmarks.compiled --device {options.device}"
    record.write(f"compiled_{device.type}", command, header, rows)


if __name__ == "__main__":
    main()
