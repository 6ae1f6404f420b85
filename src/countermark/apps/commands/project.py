"""`countermark project`: the codes of pictures."""

from __future__ import annotations

import argparse
from typing import Any

from countermark.apps.options import RUN_HELP, add_command, add_json, add_model, numbers, show_entries


def add(commands: Any) -> None:
    text = "find the codes whose pictures come closest to given ones; what is released is an edit of its parent"
    command = add_command(commands, "project", run, text, "project runs/faces photo.jpg --out projected")
    command.add_argument("run_folder", metavar="RUN", help=RUN_HELP)
    command.add_argument("files", nargs="+", metavar="FILE", help="pictures: PNG, JPEG or WebP")
    command.add_argument("--out", required=True, help="folder for the pictures and their codes (.code.safetensors)")
    add_model(command)
    command.add_argument("--steps", type=int, default=1000, help="of the search (default: 1000)")
    command.add_argument("--seed", type=int, default=0, help="of the codes that it starts from (default: 0)")
    command.add_argument(
        "--space", choices=("w", "w+", "z"), help="of a style-based generator: w (the default), w+ comes closer, or z"
    )
    command.add_argument("--classes", type=numbers, help="classes to try, such as 0-9 (default: all)")
    command.add_argument(
        "--features", choices=("efflite0",), help="compare by a network's features too (the extra `features`)"
    )
    add_json(command)


def run(arguments: argparse.Namespace) -> int:
    from countermark.apps.progress import track
    from countermark.jobs.project import as_lines, project_files

    entries = project_files(
        arguments.run_folder,
        arguments.files,
        out=arguments.out,
        steps=arguments.steps,
        seed=arguments.seed,
        space=arguments.space,
        classes=arguments.classes,
        features=arguments.features,
        model=arguments.model,
        track=track,
    )
    return show_entries(entries, arguments.json, as_lines)
