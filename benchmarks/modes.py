"""The classic proof: which methods recover the modes of 25 Gaussians on a grid, and of 8 on a ring.

On points (benchmarks/points.py) every method has the same networks, batch of reals or packs, and Adam; in those that
are not a paper's own recipe G learns ten times as fast as D (the rates of arXiv:1611.02163), where a plain GAN
collapses. Rates fall by half a cosine. A mode is recovered when
one of 2,500 samples is within three deviations of it, and quality is the share of samples that are within three
deviations of a mode (VEEGAN's protocol, arXiv:1705.07761).

python -m benchmarks.modes [--data grid25] [--seeds 5] [--methods NAME ...]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import points, record
from countermark.core.files import write_atomic
from countermark.core.seeds import latents
from countermark.core.spec import Schedule, Spec
from countermark.data.made import Mixture, grid25, ring8
from countermark.jobs.charts import scatter_charts
from countermark.training.trainer import Trainer

FIGURES = Path(__file__).parents[1] / "docs" / "gans"
DATA: dict[str, Callable[[int], Mixture]] = {"grid25": grid25, "ring8": ring8}
NUM_SAMPLES, NUM_SHOWN = 2500, 500
SLOW_D = "ttur=0.1"
LR = 1e-3  # of G at the start


@dataclass(frozen=True)
class Method:
    """A Spec and what is changed of its settings; iterations are D's steps on the grid, half of that on the ring.

    end: the learning rates in the end, as a part of those at the start.
    """

    spec: Spec
    changes: dict[str, Any] = field(default_factory=dict)
    iterations: int = 8_000
    end: float = 0.1


METHODS = {
    "vanilla, equal rates": Method(points.SPEC),
    "vanilla": Method(points.SPEC, {"cures": (SLOW_D,)}),
    "pacgan=2": Method(points.SPEC, {"cures": (SLOW_D, "pacgan=2"), "batch": 256}, iterations=16_000),
    "minibatch_discrimination": Method(points.SPEC, {"cures": (SLOW_D, "minibatch_discrimination=8")}),
    "unrolled=5": Method(points.SPEC, {"cures": (SLOW_D, "unrolled=5")}),
    "wgan_gp": Method(points.WGAN_GP, iterations=40_000, end=0.01),
    "r3gan": Method(points.R3GAN, end=0.01),
}


def train_one(method: Method, reals: Mixture, iterations: int, seed: int) -> np.ndarray:
    """Samples [NUM_SAMPLES,2] of G after the iterations."""
    batch = method.changes.get("batch", 128)
    lr = Schedule(LR, LR * method.end, iterations * batch)
    settings = points.PointSettings(**{"batch": batch, "lr": lr, **method.changes})
    trainer = Trainer(method.spec, settings, reals, seed)
    for _ in range(iterations):
        trainer.advance(None)
    with torch.no_grad():
        return trainer.networks["G"](latents(range(NUM_SAMPLES), settings.num_z)).flatten(1).numpy()


def summary(values: list[float], digits: int) -> str:
    """Mean and standard deviation over the seeds, and the least."""
    spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{np.mean(values):.{digits}f} ± {spread:.{digits}f} (least {min(values):.{digits}f})"


def _points(shown: str) -> np.ndarray:
    return np.array([point.split(",") for point in shown.split()], float)


def earlier(name: str, command: str) -> dict[str, Any]:
    """What the same command has found on such a machine, by method: --methods takes some of them anew."""
    path = record.RESULTS / f"{name}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    same = known.get("command") == command and {**known["machine"], "date": ""} == {**record.machine(), "date": ""}
    return known["found"] if same else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=DATA, default="grid25")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    name, command = f"modes_{options.data}", f"python -m benchmarks.modes --data {options.data} --seeds {options.seeds}"
    found = earlier(name, command)
    shorter = 1 if options.data == "grid25" else 2
    for word in options.methods:
        method, runs = METHODS[word], []
        for seed in range(options.seeds):
            reals = DATA[options.data](seed)
            samples = train_one(method, reals, method.iterations // shorter, seed)
            runs.append(reals.found(samples))
            print(word, seed, *runs[-1], flush=True)
            if seed == 0:
                shown = " ".join(f"{x:.3f},{y:.3f}" for x, y in samples[:NUM_SHOWN])  # a line of the results
        found[word] = {"modes": [m for m, _ in runs], "quality": [q for _, q in runs], "samples": shown}
    found = {word: found[word] for word in METHODS if word in found}
    reals = DATA[options.data](0)
    real = reals.at(0, NUM_SHOWN).images.reshape(-1, 2)
    panels = {"reals": real, **{word: _points(one["samples"]) for word, one in found.items()}}
    write_atomic(FIGURES / f"{options.data}.svg", str(scatter_charts(panels, limit=1.0)).encode())
    num = len(reals.centres)
    rows = [
        [word, METHODS[word].iterations // shorter, summary(one["modes"], 1), summary(one["quality"], 2)]
        for word, one in found.items()
    ]
    for word, one in found.items():
        if word == "vanilla":
            record.require(np.mean(one["modes"]) < num / 2, "vanilla loses modes")
        elif word != "vanilla, equal rates":
            record.require(min(one["modes"]) >= num - (num > 8), f"{word} recovers the modes")
    header = ["method", "steps of D", f"modes of {num}: mean ± deviation over {options.seeds} seeds", "quality"]
    record.write(name, command, header, rows, found=found)


if __name__ == "__main__":
    main()
