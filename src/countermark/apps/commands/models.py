"""`countermark models`: what can be trained, and what is."""

from __future__ import annotations

import argparse
from typing import Any

from countermark.apps.options import add_command, add_json, print_json


def add(commands: Any) -> None:
    command = add_command(
        commands, "models", run, "list the models, their presets and parameter counts", "models --json"
    )
    add_json(command)


def run(arguments: argparse.Namespace) -> None:
    from countermark.jobs.models import list_models

    models = list_models()
    if arguments.json:
        print_json(models)
        return
    for model in models:
        print(f"{model['name']}  ({model['kind']}, {model['year']}: {model['paper']})")
        for name, preset in model["presets"].items():
            counts = "  ".join(f"{network} {count:,}" for network, count in preset["parameters"].items())
            print(f"  {model['name']}:{name:<12} {preset['size']:>4} px  {counts}")
        for name in model["trained"]:
            print(f"  {name}  ready to sample: countermark sample {name} --out samples")
