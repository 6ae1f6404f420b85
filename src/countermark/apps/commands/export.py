"""`countermark export`: a generator for other programs."""

from __future__ import annotations

import argparse
from typing import Any

from countermark.apps.options import RUN_HELP, add_command, add_json, add_model, show


def add(commands: Any) -> None:
    text = "write a run's generator as a file for other programs; what they make with it carries no marks"
    command = add_command(commands, "export", run, text, "export runs/faces --format onnx --out faces.onnx")
    command.add_argument("run_folder", metavar="RUN", help=RUN_HELP)
    command.add_argument("--out", required=True, metavar="FILE", help="the file, such as faces.onnx")
    command.add_argument("--format", choices=("onnx",), default="onnx", help="(default: onnx)")
    add_model(command)
    add_json(command)


def run(arguments: argparse.Namespace) -> None:
    from countermark.jobs.export import export_run

    written = export_run(arguments.run_folder, out=arguments.out, model=arguments.model)
    same = f"within {written['max_difference']:.1g} of torch"
    line = f"{written['path']}: {written['bytes']:,} bytes, {same}; its pictures carry no marks"
    show(written, arguments.json, [line])
