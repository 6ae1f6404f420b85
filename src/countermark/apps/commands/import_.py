"""`countermark import`: an official checkpoint into a run."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from countermark.apps.options import add_command
from countermark.core.text import printable


def add(commands: Any) -> None:
    text = "turn an official checkpoint into a run, without executing it; weights keep their licence"
    command = add_command(
        commands, "import", run, text, "import netG_epoch_24.pth netD_epoch_24.pth --model dcgan --out runs/old"
    )
    command.add_argument(
        "files", nargs="+", metavar="FILE", help=".pth or .pkl; G and D may come apart, D may be missing"
    )
    command.add_argument("--model", required=True, help="the model that the networks are of (see: countermark models)")
    command.add_argument("--out", required=True, help="the run's folder")


def run(arguments: argparse.Namespace) -> None:
    from countermark.jobs.importing import import_run

    def say(line: str) -> None:
        print(printable(line), file=sys.stderr)

    print(import_run(arguments.files, model=arguments.model, out=arguments.out, say=say))
