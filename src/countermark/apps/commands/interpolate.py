"""`countermark interpolate`: make a clip."""

from __future__ import annotations

import argparse
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
    text = "make a clip that walks from seed to seed, every frame marked"
    command = add_command(commands, "interpolate", run, text, "interpolate runs/digits --out walk.mp4 --seeds 1,5,9")
    command.add_argument("run_folder", metavar="RUN", help=RUN_HELP)
    command.add_argument("--out", required=True, metavar="FILE.mp4")
    add_model(command)
    command.add_argument("--seeds", type=numbers, default=list(range(6)), help="such as 0-5 (the default)")
    add_codes(command)
    command.add_argument("--frames-per-seed", type=int, default=60, metavar="N", help="(default: 60)")
    command.add_argument("--fps", type=float, default=30.0, help="frames a second (default: 30)")
    command.add_argument("--no-loop", dest="loop", action="store_false", help="end at the last seed, not at the first")
    add_certificate(command)
    add_json(command)


def run(arguments: argparse.Namespace) -> None:
    from countermark.apps.progress import track
    from countermark.jobs.interpolate import interpolate

    released = interpolate(
        arguments.run_folder,
        out=arguments.out,
        seeds=arguments.seeds,
        frames_per_seed=arguments.frames_per_seed,
        fps=arguments.fps,
        loop=arguments.loop,
        classes=arguments.classes,
        truncation=arguments.truncation,
        model=arguments.model,
        certificate=arguments.certificate,
        key=arguments.key,
        track=track,
    )
    line = f"{released['frames']} frames, each marked, signed and registered as {released['path']}"
    show(released, arguments.json, [line])
