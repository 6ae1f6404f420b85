"""`countermark train`: from words to a run."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from countermark.apps.options import RUN_HELP, SOURCE_HELP, add_command, names
from countermark.core.text import printable


def add(commands: Any) -> None:
    text = "train a model; the same command again resumes"
    command = add_command(commands, "train", run, text, "train dcgan:mnist32 --data mnist5k --out runs/digits lr=1e-4")
    command.add_argument("model", help="MODEL, MODEL:PRESET, or my_model.py:SPEC (see: countermark models)")
    command.add_argument("--data", required=True, metavar="SOURCE", help=SOURCE_HELP)
    command.add_argument("--out", required=True, help="the run's folder")
    command.add_argument("--images", type=_count, help="stop after so many real images shown")
    command.add_argument("--minutes", type=float, help="stop after so many minutes of training")
    command.add_argument("--seed", type=int, default=0, help="(default: 0)")
    command.add_argument("--size", type=int, help="centre crop and resize the pictures to this side")
    command.add_argument("--from", dest="start", metavar="RUN", help=f"start from its weights; {RUN_HELP}")
    command.add_argument("--against", metavar="RUN|DIR", help="for a detector: where synthetic pictures come from")
    command.add_argument("--against-model", metavar="FILE.py:SPEC", help="its model's file, if it is your own")
    command.add_argument("--metrics", type=names, default=[], help="figures to follow: fd,kid,pr,dc")
    command.add_argument(
        "--cures", type=_cures, default=[], metavar="NAME[=NUMBER],...", help="such as pacgan=2,dragan (docs/cures.md)"
    )
    command.add_argument(
        "--memory",
        type=float,
        default=2.0,
        metavar="GIB",
        help="for decoded pictures (default: 2); a set over half of it is streamed, in the same order",
    )
    command.add_argument(
        "--devices",
        type=int,
        default=1,
        metavar="N",
        help="processes that share each batch; docs/scale.md (default: 1)",
    )
    command.add_argument(
        "--accelerator", choices=("cpu", "cuda"), default="cpu", help="what they run on (default: cpu)"
    )
    command.add_argument(
        "--compile", action="store_true", help="compile the networks first, which takes minutes; docs/scale.md"
    )
    command.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="settings of the preset to change")


def run(arguments: argparse.Namespace) -> None:
    from countermark.training.distributed import launch

    last = launch(partial(_train_as, arguments), arguments.devices, arguments.accelerator)
    if last:
        print(printable(last))


def _train_as(arguments: argparse.Namespace, ranks: Any) -> Any:
    """Train as one of the processes; the last state where it is the first of them, which alone shows anything."""
    from countermark.apps.progress import TrainingBar
    from countermark.jobs.train import train_model

    with TrainingBar(silent=ranks.rank > 0) as bar:
        last = train_model(
            arguments.model,
            data=arguments.data,
            out=arguments.out,
            images=arguments.images,
            minutes=arguments.minutes,
            seed=arguments.seed,
            size=arguments.size,
            start=arguments.start,
            against=arguments.against,
            against_model=arguments.against_model,
            metrics=arguments.metrics,
            cures=arguments.cures,
            settings=arguments.settings,
            memory_gib=arguments.memory,
            track=bar.track,
            say=bar.say,
            progress=bar.update,
            ranks=ranks,
            compiled=arguments.compile,
        )
    return last if ranks.rank == 0 else None


def _count(text: str) -> int:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of images like 200000 or 2e5") from None
    if not 1 <= value < 1e15:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of images")
    return int(value)


def _cures(text: str) -> list[str]:
    if not all(parts := text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of cures like pacgan=2,dragan")
    return parts
