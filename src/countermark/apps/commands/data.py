"""`countermark data`: inspect and pack a source of pictures."""

from __future__ import annotations

import argparse
from typing import Any

from countermark.apps.options import SOURCE_HELP, add_command, add_json, show


def add(commands: Any) -> None:
    text = "inspect a source of pictures: counts, duplicates, broken files (listed; the status stays 0); pack it"
    command = add_command(commands, "data", run, text, "data my_photos/ --pack 'shards/{000..009}.tar' --size 64")
    command.add_argument("source", metavar="SOURCE", help=SOURCE_HELP)
    command.add_argument(
        "--pack",
        metavar="OUT",
        help="write the sound pictures as x.zip (StyleGAN's), x.tar or 'shards/{000..009}.tar' (webdataset's)",
    )
    command.add_argument(
        "--size", type=int, help="for --pack: centre crop and resize to this side, as PNG (default: files as they are)"
    )
    command.add_argument("--sheet", metavar="FILE.html", help="write a page with pictures, counts and duplicates")
    add_json(command)


def run(arguments: argparse.Namespace) -> None:
    from countermark.apps.progress import track
    from countermark.jobs.data import as_lines, inspect_data

    found = inspect_data(arguments.source, out=arguments.pack, size=arguments.size, page=arguments.sheet, track=track)
    show(found, arguments.json, as_lines(found))
