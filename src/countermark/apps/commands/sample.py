"""`countermark sample`: make pictures."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

from countermark.apps.options import (
    RUN_HELP,
    add_certificate,
    add_codes,
    add_command,
    add_json,
    add_model,
    numbers,
    show,
)


def add(commands: Any) -> None:
    command = add_command(
        commands,
        "sample",
        run,
        "make pictures, each marked and registered",
        "sample runs/digits --out samples --seeds 0-63",
    )
    command.add_argument("run_folder", metavar="RUN", help=RUN_HELP)
    command.add_argument("--out", required=True, help="folder for the pictures")
    add_model(command)
    command.add_argument("--seeds", type=numbers, default=list(range(64)), help="such as 0-63 (the default)")
    add_codes(command)
    command.add_argument(
        "--mix-seeds",
        type=numbers,
        metavar="SEEDS",
        help="a grid: each of --seeds (rows) in the styles of each of these",
    )
    command.add_argument(
        "--mix-layers",
        type=numbers,
        metavar="LAYERS",
        help="the layers mixed in (default: the second half, fine detail)",
    )
    command.add_argument("--format", choices=("png", "jpeg", "webp"), default="png", help="(default: png)")
    add_certificate(command)
    command.add_argument(
        "--native-size", action="store_true", help="keep small pictures small (no watermark fits them)"
    )
    add_json(command)


def run(arguments: argparse.Namespace) -> None:
    from countermark.apps.progress import track
    from countermark.core.errors import UsageError
    from countermark.jobs.sample import mix, sample

    make: Callable[..., list[dict]] = sample
    if arguments.mix_seeds:
        make = partial(mix, mix_seeds=arguments.mix_seeds, mix_layers=arguments.mix_layers)
    elif arguments.mix_layers:
        raise UsageError("mix-layers: whose styles? give --mix-seeds too, such as 100-103")
    released = make(
        arguments.run_folder,
        out=arguments.out,
        seeds=arguments.seeds,
        classes=arguments.classes,
        truncation=arguments.truncation,
        format=arguments.format,
        native_size=arguments.native_size,
        model=arguments.model,
        certificate=arguments.certificate,
        key=arguments.key,
        track=track,
    )
    line = f"{len(released)} pictures, marked, signed and registered, in {arguments.out}"
    show(released, arguments.json, [line])
