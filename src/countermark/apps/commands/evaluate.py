"""`countermark evaluate`: measure made pictures beside real ones."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from countermark.apps.options import RUN_HELP, SOURCE_HELP, add_command, add_json, add_model, names, show


def add(commands: Any) -> None:
    text = "measure how close made pictures are to real ones, with intervals"
    command = add_command(commands, "evaluate", run, text, "evaluate runs/digits --data mnist5k --metrics fd,kid,pr,dc")
    command.add_argument("made", metavar="RUN|DIR", help=f"{RUN_HELP}, or a folder of pictures")
    command.add_argument("--data", required=True, metavar="SOURCE", help=f"the real pictures: {SOURCE_HELP}")
    command.add_argument("--metrics", type=names, default=["fd", "kid", "pr", "dc"], help="(default: fd,kid,pr,dc)")
    command.add_argument("--features", default=None, help="own, efflite0 or inception (default: own for labelled sets)")
    add_model(command)
    command.add_argument("--num", type=int, default=1000, help="pictures to sample from a run (default: 1000)")
    command.add_argument(
        "--part", default="test", help="part of the real set: generator, detector, calibration, test, all"
    )
    add_json(command)


def run(arguments: argparse.Namespace) -> None:
    from countermark.jobs.evaluate import evaluate

    found = evaluate(
        arguments.made,
        data=arguments.data,
        metrics=arguments.metrics,
        features=arguments.features,
        num=arguments.num,
        part=arguments.part,
        model=arguments.model,
    )
    show(found, arguments.json, _lines(found))


def _lines(found: dict[str, Any]) -> Iterator[str]:
    for name, figure in found.items():
        if isinstance(figure, dict) and "value" in figure:
            low, high = figure["ci95"]
            yield f"{name:<10} {figure['value']:.4g}  [{low:.4g}, {high:.4g}]  on {figure['features']}"
    yield f"{found['num_fake']} made against {found['num_real']} real pictures"
