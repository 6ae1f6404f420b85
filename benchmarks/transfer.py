"""Transfer: few pictures of another set, from nothing, from a run, and from a run with D's lower layers frozen.

A network learns faces64 for some minutes; then every arm gets the same 200 avatars and the same processor time of one
thread. Distances are to the avatars' test part, which nothing was trained on; each arm is trained with three seeds.

python -m benchmarks.transfer [--model dcgan] [--minutes 2] [--source-minutes 6]
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks import record
from benchmarks.zoo_quality import FEATURES, GRIDS, NUM_FAKE, SIDE, Judge, ProcessorTime, chosen
from countermark.core import checkpoint
from countermark.core.spec import Settings, Spec
from countermark.data.image import PictureSet, Shuffled, load
from countermark.data.sources import open_source
from countermark.jobs.watch import release_grid
from countermark.models import find
from countermark.training.loop import train
from countermark.training.run import document, settings_to_json
from countermark.training.trained import Trained, load_run
from countermark.training.trainer import Trainer

NUM_PICTURES, SEEDS = 200, (0, 1, 2)
ARMS = {"from nothing": (False, ()), "from the run": (True, ()), "from the run, freeze_d=2": (True, ("freeze_d=2",))}


def few(pictures: PictureSet, num: int) -> PictureSet:
    """The first `num` pictures of the generator's part."""
    part = pictures.part("generator")
    return PictureSet(part.name, part.images[:num], None, [], part.units[:num])


def train_one(
    spec: Spec, settings: Settings, pictures: PictureSet, seed: int, minutes: float, start: Path | None, folder: Path
) -> Trained:
    trainer = Trainer(spec, settings, Shuffled(pictures, seed), seed)
    if start is not None:
        trainer.adopt(checkpoint.load_state(start)[0])
    words = {"model": spec.name, "settings": settings_to_json(settings), "seed": seed}
    config = document({**words, "data": {"name": pictures.name, "fingerprint": pictures.fingerprint}})
    train(trainer, folder, ProcessorTime(60 * minutes), config=config)
    return load_run(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dcgan")
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--source-minutes", type=float, default=6)
    options = parser.parse_args()
    torch.set_num_threads(1)
    spec = find(options.model)
    source, target = (load(open_source(name), SIDE) for name in ("faces64", "avatars"))
    settings = chosen(spec, target)[1]
    judge, rows = Judge(target), []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        learnt = train_one(spec, settings, source.part("generator"), 0, options.source_minutes, None, folder / "source")
        start = checkpoint.states(folder / "source")[-1]
        rows.append(["before: the run itself", learnt.nimg, *distances(judge, [learnt])])
        for i, (name, (transferred, cures)) in enumerate(ARMS.items()):
            cured = dataclasses.replace(settings, cures=cures)
            runs = [
                train_one(
                    spec,
                    cured,
                    few(target, NUM_PICTURES),
                    seed,
                    options.minutes,
                    start if transferred else None,
                    folder / f"{i}-{seed}",
                )
                for seed in SEEDS
            ]
            release_grid(runs[0], range(64), None, GRIDS / f"transfer-{i}.png")
            rows.append([name, round(np.mean([run.nimg for run in runs])), *distances(judge, runs)])
            print(rows[-1], flush=True)
    header = ["arm", "images", f"FD-{FEATURES} (least to most of {len(SEEDS)} seeds)", f"KID-{FEATURES}"]
    command = (
        f"python -m benchmarks.transfer --model {options.model} --minutes {options.minutes:g} "
        f"--source-minutes {options.source_minutes:g}"
    )
    record.write(f"transfer_{options.model}", command, header, rows)


def distances(judge: Judge, runs: list[Trained]) -> list[str]:
    """FD and KID of the runs' pictures: mean, least and most."""
    found = [judge.values(run.measured("evaluate", NUM_FAKE)) for run in runs]
    return [
        f"{np.mean(values):.3g} ({min(values):.3g} to {max(values):.3g})"
        for values in ([one[name] for one in found] for name in ("fd", "kid"))
    ]


if __name__ == "__main__":
    main()
