"""`countermark models`: what can be trained, and what is."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from countermark.apps.options import add_command, add_json, show


def add(commands: Any) -> None:
    command = add_command(
        commands, "models", run, "list the models, their presets and parameter counts", "models --json"
    )
    add_json(command)


def run(arguments: argparse.Namespace) -> None:
    from countermark.jobs.models import list_models

    models = list_models()
    show(models, arguments.json, _lines(models))


def _lines(models: list[dict[str, Any]]) -> Iterator[str]:
    for model in models:
        yield f"{model['name']}  ({model['kind']}, {model['year']}: {model['paper']})"
        for name, preset in model["presets"].items():
            counts = "  ".join(f"{network} {count:,}" for network, count in preset["parameters"].items())
            yield f"  {model['name']}:{name:<12} {preset['size']:>4} px  {counts}"
        for name in model["trained"]:
            yield f"  {name}  ready to sample: countermark sample {name} --out samples"
