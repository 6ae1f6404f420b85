"""Images a second of one process on one core, and of two processes on two cores that share each batch.

Every process computes in one thread. The two ways are measured in turn, a few rounds of them, and the better round of
each counts, as other work on the machine only ever slows down. The last column compares by a process' processor time,
which other work lengthens little. A round has as many batches as the longest interval of the model's phases, or takes a
few seconds.

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

# Large enough that what each process does once a batch (Adam, averages, the exchange) is little beside its pictures.
BATCHES = {"dcgan:dcgan64": 128, "sngan:size32": 128, "stylegan2:size32": 64, "r3gan:size32": 64}
BAR = 1.8
SECONDS = 4.0  # of a round, at least


def measure(models: list[str], ranks: Ranks) -> dict[str, tuple[float, float]]:
    """Images a second of each model, by the clock and by this process' processor time, in one round."""
    torch.set_num_threads(1)
    return {model: rate(model, ranks) for model in models}


def rate(model: str, ranks: Ranks) -> tuple[float, float]:
    name, _, preset = model.partition(":")
    spec = find(name)
    settings = dataclasses.replace(spec.presets[preset], batch=BATCHES[model])
    trainer = Trainer(spec, settings, Noise(settings), 0, ranks)
    trainer.advance(None)  # takes memory, and every phase is due
    every = max(phase.interval for phase in trainer.phases)
    num, elapsed, start, cpu_start = 0, 0.0, time.perf_counter(), time.process_time()
    while ranks.agreed(elapsed < SECONDS):
        for _ in range(every):
            trainer.advance(None)
        num += every * settings.batch
        elapsed = time.perf_counter() - start
    return num / elapsed, num / (time.process_time() - cpu_start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", choices=BATCHES, default=list(BATCHES))
    parser.add_argument("--rounds", type=int, default=2, help="of each way (default: 2)")
    parser.add_argument("--devices", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.devices:
        print(json.dumps(launch(partial(measure, options.models), options.devices)))
        return
    found: dict[int, list[dict[str, list[float]]]] = {1: [], 2: []}
    for _ in range(options.rounds):
        for devices, rounds in found.items():
            words = ["--devices", str(devices), "--models", *options.models]
            said = subprocess.check_output([sys.executable, "-m", "benchmarks.scaling", *words], text=True)
            rounds.append(json.loads(said.splitlines()[-1]))
    rows = []
    for model in options.models:
        (one, one_cpu), (two, two_cpu) = (
            [max(rates[model][way] for rates in rounds) for way in (0, 1)] for rounds in found.values()
        )
        rows.append([model, BATCHES[model], one, two, two / one, two_cpu / one_cpu])
        record.require(two >= BAR * one, f"{model}: two processes are {two / one:.2f} times one, not {BAR}")
    header = ["model", "batch", "images/s, one process", "images/s, two", "ratio", "ratio by processor time"]
    record.write("scaling", "python -m benchmarks.scaling", header, rows)


if __name__ == "__main__":
    main()
