"""`countermark demo`: train, sample, mark, verify and detect."""

from __future__ import annotations

import argparse
from typing import Any

from countermark.apps.options import add_command


def add(commands: Any) -> None:
    command = add_command(
        commands, "demo", run, "train, sample, mark, verify and detect, with a report", "demo --out demo"
    )
    command.add_argument("--out", default="demo", help="folder of the report (default: demo)")
    command.add_argument("--minutes", type=float, default=3.0, help="length of the training (default: 3)")


def run(arguments: argparse.Namespace) -> None:
    from countermark.apps.progress import TrainingBar
    from countermark.jobs.demo import Show, demo

    with TrainingBar() as bar:
        demo(arguments.out, minutes=arguments.minutes, show=Show(bar.say, bar.update, bar.track))
