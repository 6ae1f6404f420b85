"""`countermark directions`: ways to edit."""

from __future__ import annotations

import argparse
from typing import Any

from countermark.apps.options import RUN_HELP, add_command, add_json, add_model, numbers, reals, show


def add(commands: Any) -> None:
    text = "find ways to edit a run's pictures without labels, and show what each does"
    command = add_command(
        commands,
        "directions",
        run,
        text,
        "directions runs/faces --method sefa --out directions --strengths -3,0,3",
    )
    command.add_argument("run_folder", metavar="RUN", help=RUN_HELP)
    command.add_argument("--out", required=True, help="folder for directions.safetensors and a picture a direction")
    add_model(command)
    command.add_argument("--method", choices=("sefa", "ganspace"), default="sefa", help="(default: sefa)")
    command.add_argument("--num", type=int, default=8, help="how many directions (default: 8)")
    command.add_argument(
        "--strengths", type=reals, default=[-3.0, 0.0, 3.0], help="columns, in standard deviations (default: -3,0,3)"
    )
    command.add_argument("--seeds", type=numbers, default=[0, 1, 2, 3], help="rows (default: 0-3)")
    command.add_argument("--classes", type=numbers, help="of the rows, in turn; the first is the one that is searched")
    command.add_argument("--layers", type=numbers, help="of a style-based generator: edit these only, such as 0-3")
    add_json(command)


def run(arguments: argparse.Namespace) -> None:
    from countermark.jobs.directions import release_directions

    released = release_directions(
        arguments.run_folder,
        out=arguments.out,
        method=arguments.method,
        num=arguments.num,
        strengths=arguments.strengths,
        seeds=arguments.seeds,
        classes=arguments.classes,
        layers=arguments.layers,
        model=arguments.model,
    )
    show(released, arguments.json, [f"{len(released)} directions, each with a picture, in {arguments.out}"])
