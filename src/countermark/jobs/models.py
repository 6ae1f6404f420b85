"""`countermark models`: what can be trained, with the parameter counts of every preset, and what ships trained."""

from __future__ import annotations

from typing import Any

import torch

from countermark.core.spec import Settings, Spec
from countermark.models import SPECS
from countermark.training.shipped import shipped


def list_models() -> list[dict[str, Any]]:
    """One entry a model, in the shape of `models --json`."""
    return [
        {
            "name": spec.name,
            "kind": spec.kind,
            "paper": spec.paper,
            "year": spec.year,
            "presets": {name: _describe(spec, preset) for name, preset in spec.presets.items()},
            "trained": [name for name in shipped() if name.partition("@")[0] == spec.name],
        }
        for spec in SPECS
    ]


def _describe(spec: Spec, settings: Settings) -> dict[str, Any]:
    with torch.device("meta"):  # shapes without memory: counting the largest network's parameters costs nothing
        networks = spec.build(settings)
    counts = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    return {
        "size": settings.size,
        "channels": settings.channels,
        "num_classes": settings.num_classes,
        "parameters": {name: count for name, count in counts.items() if count},  # augmentation learns none
    }
