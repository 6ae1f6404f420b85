"""`countermark detect`: whether files are synthetic."""

from __future__ import annotations

import argparse
from typing import Any

from countermark.apps.options import add_command, add_json, add_model, show_entries


def add(commands: Any) -> None:
    text = "decide whether files are synthetic: marks first, then calibrated detectors, else unknown"
    command = add_command(commands, "detect", run, text, "detect --detector runs/detector picture.png")
    command.add_argument("files", nargs="+", metavar="FILE")
    command.add_argument(
        "--detector", action="append", default=[], metavar="RUN", help="a trained detector (may be given several times)"
    )
    add_model(command)
    command.add_argument("--heatmap", metavar="DIR", help="write a picture of where each detector found its evidence")
    add_json(command)


def run(arguments: argparse.Namespace) -> int:
    from countermark.jobs.detect import as_lines, detect_files

    entries = detect_files(
        arguments.files, detectors=arguments.detector, model=arguments.model, heatmap=arguments.heatmap
    )
    return show_entries(entries, arguments.json, as_lines)
