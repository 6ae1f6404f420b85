"""Peak memory of training StyleGAN2 at 64 px, in the size whose speed the official code is compared at.

Each row is a process of its own that trains for two batches, of which the first makes every phase due: R1's and path
length's second derivatives are in it. The bar: under 8 GiB.

python -m benchmarks.memory [--batch 32] [--threads 2]
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import resource
import sys
from concurrent.futures import ProcessPoolExecutor

import torch

from benchmarks import record
from benchmarks.speed import PRECISIONS, WIDE, Noise
from countermark.models import find
from countermark.training.trainer import Trainer

MAX_GIB = 8
HEADER = ["model", "px", "precision", "batch", "parameters (million)", "peak memory (GiB)"]


def measure(changes: dict, threads: int) -> tuple[int, float]:
    """(parameters that are trained, peak resident memory of this process in GiB)."""
    torch.set_num_threads(threads)
    spec = find("stylegan2")
    settings = dataclasses.replace(spec.presets["size64"], **{**WIDE, "augment": "", **changes})
    trainer = Trainer(spec, settings, Noise(settings), 0)
    for _ in range(2):
        trainer.advance(None)
    num = sum(parameter.numel() for network in trainer.networks.values() for parameter in network.parameters())
    unit = 1 if sys.platform == "darwin" else 2**10  # bytes there, kibibytes elsewhere
    return num, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    rows = []
    for precision, mode in PRECISIONS.items():
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            num, peak = pool.submit(measure, {"batch": options.batch, **mode}, options.threads).result()
        rows.append(["stylegan2", 64, precision, options.batch, num / 1e6, peak])
        record.require(peak < MAX_GIB, f"{precision}: {peak:.1f} GiB is not under {MAX_GIB} GiB")
    command = f"python -m benchmarks.memory --batch {options.batch} --threads {options.threads}"
    record.write("memory", command, HEADER, rows)


if __name__ == "__main__":
    main()
