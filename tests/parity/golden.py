"""Fixtures of official networks: weights, inputs, outputs, constructor arguments."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

FOLDER = Path(os.environ.get("COUNTERMARK_GOLDEN", Path(__file__).parents[1] / "golden"))
TOLERANCE = 1e-3  # of the official output's standard deviation


class Golden:
    """One fixture; outputs that a test has not compared are found by `unchecked`."""

    def __init__(self, model: str, *, inputs: tuple[str, ...]) -> None:
        with safe_open(FOLDER / f"{model}.safetensors", "pt") as file:
            self.config: dict[str, Any] = json.loads(file.metadata()["config"])
            self.tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dictionary)
        self.io = {key.removeprefix("io."): t for key, t in self.tensors.items() if key.startswith("io.")}
        self.unchecked = set(self.io) - set(inputs)

    def load(self, network: nn.Module, prefix: str, rename: Callable[[str], str]) -> None:
        """The official weights below `prefix`, every one of them and no other."""
        network.load_state_dict(self.below(prefix, rename))

    def below(self, prefix: str, rename: Callable[[str], str]) -> Mapping[str, Tensor]:
        return {rename(k.removeprefix(prefix)): t for k, t in self.tensors.items() if k.startswith(prefix)}

    def check(self, name: str, ours: Tensor) -> None:
        official = self.io[name]
        assert ours.shape == official.shape
        deviation = (ours.detach() - official).abs().max().item()
        allowed = TOLERANCE * official.std().item()
        print(f"{name}: {deviation / official.std().item():.2e} of the standard deviation")
        assert deviation <= allowed, f"{name} is off by {deviation:.3g}, allowed are {allowed:.3g}"
        self.unchecked.discard(name)


def gradient_head(network: nn.Module, num_parameters: int = 8, num_entries: int = 5) -> Tensor:
    """The first entries of the gradients of the first parameters that have one."""
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    return torch.cat([gradient.flatten()[:num_entries] for gradient in gradients[:num_parameters]])
