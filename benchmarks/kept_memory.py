"""What memory that stays with the process is worth: images a second of training with and without it, side by side.

Each variant runs in a process of its own, since both settings last for a process' life: keep_freed_memory
(core/memory.py) and large pages (THP_MEM_ALLOC_ENABLE, which the command line sets).

python -m benchmarks.kept_memory [--model r3gan:size64] [--seconds 20]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from unittest.mock import patch

from benchmarks import record
from benchmarks.speed import Noise
from countermark.models import find
from countermark.training import trainer

VARIANTS = {
    "neither": {"keep": False, "pages": "0"},
    "large pages": {"keep": False, "pages": "1"},
    "kept memory": {"keep": True, "pages": "0"},
    "both": {"keep": True, "pages": "1"},
}


def measure(model: str, keep: bool, seconds: float) -> dict[str, float]:
    """Images a second, and page faults an image, of this process."""
    name, _, preset = model.partition(":")
    spec = find(name)
    settings = spec.presets[preset]
    with patch.object(trainer, "keep_freed_memory", trainer.keep_freed_memory if keep else lambda: None):
        training = trainer.Trainer(spec, settings, Noise(settings), 0)
    for _ in range(2):
        training.advance(None)
    num, start, faults = 0, time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    while (elapsed := time.perf_counter() - start) < seconds:
        training.advance(None)
        num += settings.batch
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {"rate": num / elapsed, "faults": (usage.ru_minflt - faults) / num, "peak_mib": usage.ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="r3gan:size64")
    parser.add_argument("--seconds", type=float, default=20, help="for each variant (default: 20)")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.variant:
        print(json.dumps(measure(options.model, bool(VARIANTS[options.variant]["keep"]), options.seconds)))
        return
    rows: list[list[object]] = []
    for name, variant in VARIANTS.items():
        command = [sys.executable, "-m", "benchmarks.kept_memory", "--variant", name, "--model", options.model]
        environment = {**os.environ, "THP_MEM_ALLOC_ENABLE": str(variant["pages"])}
        done = subprocess.run(
            [*command, "--seconds", str(options.seconds)], env=environment, check=True, capture_output=True, text=True
        )
        found = json.loads(done.stdout.splitlines()[-1])
        first = rows[0][1] if rows else found["rate"]
        rows.append([name, found["rate"], found["rate"] / first, found["faults"], round(found["peak_mib"])])
    header = ["memory", "images/s", "ratio", "page faults an image", "peak MiB"]
    command = f"python -m benchmarks.kept_memory --model {options.model} --seconds {options.seconds:g}"
    record.write("kept_memory", command, header, rows)


if __name__ == "__main__":
    main()
