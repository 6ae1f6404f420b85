"""Images a second of one process on one core, and of two processes on two cores that share each batch.

Every process computes in one thread. The ways are measured in turn, a few rounds of them, and the better round of
each counts, as other work on the machine only ever slows down. Beside them: two processes at half the batch that share
nothing, which is what sharing can reach at best. A round has as many batches as the longest interval of the model's
phases, and takes a few seconds at least.

python -m benchmarks.scaling [--models r3gan:size32 ...] [--rounds 3]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from functools import partial

import torch

from benchmarks import record
from benchmarks.speed import Noise
from countermark.models import find
from countermark.training.distributed import Ranks, launch
from countermark.training.trainer import Trainer

MODELS = ("dcgan:dcgan64", "sngan:size32", "stylegan2:size32", "r3gan:size32")
# The larger the batch, the less counts what each process does once a batch: Adam, averages, the exchange.
BATCHES = (64, 256)
BAR = 1.8  # at the larger one
SECONDS = 4.0  # of a round, at least
WAYS = {"one": (1, True), "shared": (2, True), "apart": (2, False)}  # processes, and whether they share batches


def measure(models: list[str], shared: bool, ranks: Ranks) -> list[float]:
    """Images a second of each model and batch, all processes together, in one round."""
    torch.set_num_threads(1)
    return [rate(model, batch, shared, ranks) for model in models for batch in BATCHES]


def rate(model: str, batch: int, shared: bool, ranks: Ranks) -> float:
    name, _, preset = model.partition(":")
    spec = find(name)
    settings = dataclasses.replace(spec.presets[preset], batch=batch if shared else batch // ranks.world)
    trainer = Trainer(spec, settings, Noise(settings), 0, ranks if shared else Ranks())
    trainer.advance(None)  # takes memory, and every phase is due
    every = max(phase.interval for phase in trainer.phases)
    num, elapsed, start = 0, 0.0, time.perf_counter()
    while ranks.agreed(elapsed < SECONDS):
        for _ in range(every):
            trainer.advance(None)
        num += every * batch
        elapsed = time.perf_counter() - start
    return num / elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=2, help="of each way (default: 2)")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        devices, shared = WAYS[options.way]
        print(json.dumps(launch(partial(measure, options.models, shared), devices)))
        return
    found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way, rounds in found.items():
            words = ["--way", way, "--models", *options.models]
            said = subprocess.check_output([sys.executable, "-m", "benchmarks.scaling", *words], text=True)
            rounds.append(json.loads(said.splitlines()[-1]))
    cases = [(model, batch) for model in options.models for batch in BATCHES]
    best = [[max(rates) for rates in zip(*rounds, strict=True)] for rounds in found.values()]
    rows = []
    for (model, batch), one, two, apart in zip(cases, *best, strict=True):
        rows.append([model, batch, one, two, two / one, apart / one])
        if batch == max(BATCHES):
            record.require(two >= BAR * one, f"{model}: two processes are {two / one:.2f} times one, not {BAR}")
    header = ["model", "batch", "images/s, one process", "images/s, two", "ratio", "ratio if they shared nothing"]
    record.write("scaling", "python -m benchmarks.scaling", header, rows)


if __name__ == "__main__":
    main()
