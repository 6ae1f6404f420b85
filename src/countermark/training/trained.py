"""A trained generator: the averaged network of a run's newest state, sampled by seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from countermark.core import checkpoint
from countermark.core.errors import CountermarkError, UsageError
from countermark.core.pixels import to_uint8
from countermark.core.seeds import generator, latents
from countermark.core.spec import Settings, Spec
from countermark.models import find, is_file
from countermark.training.run import newest_state, read_config, run_id, settings_from_json

BATCH = 64
# Samples that are measured and never shown: a million seeds for each use, far from those that people sample.
MEASURED = ("detector", "calibration", "test", "watch", "evaluate", "classify")
NUM_MEASURED = 10**6


@dataclass(frozen=True)
class Trained:
    """What a run holds once it is loaded: its spec, settings, config, averaged networks and images shown."""

    spec: Spec
    settings: Settings
    config: dict
    networks: dict[str, nn.Module]
    nimg: int

    @property
    def run_id(self) -> str:
        return run_id(self.config)

    @torch.no_grad()
    def sample(self, seeds: Sequence[int], classes: Sequence[int] | None = None) -> Tensor:
        """Pictures [N,C,H,W] in [-1,1], one a seed, the same in any batch; classes are drawn from the seeds if None.

        Raises UsageError for a run without a generator and for classes that it does not know.
        """
        if "G" not in self.networks:
            raise UsageError(f"{self.spec.name} generates nothing; sample a run of an image model")
        c = self.conditions(seeds, classes)
        z = latents(seeds, self.spec.num_z(self.settings))
        parts = [
            self.networks["G"](z[i : i + BATCH], None if c is None else c[i : i + BATCH])
            for i in range(0, len(z), BATCH)
        ]
        return torch.cat(parts).float()

    def measured(self, use: str, num: int) -> np.ndarray:
        """`num` unmarked samples uint8 [N,H,W,C] that stay in memory, from the seeds of one use of MEASURED."""
        first = NUM_MEASURED * (1 + MEASURED.index(use))
        return to_uint8(self.sample(range(first, first + num)))

    def conditions(self, seeds: Sequence[int], classes: Sequence[int] | None) -> Tensor | None:
        """One-hot classes [N,num_classes], or None for a model without classes."""
        num_classes = self.settings.num_classes
        if not num_classes:
            if classes:
                raise UsageError("classes: this run was trained without classes; leave them out")
            return None
        if classes is None:
            chosen = [int(torch.randint(num_classes, (), generator=generator(seed, "class"))) for seed in seeds]
        else:
            chosen = [classes[i % len(classes)] for i in range(len(seeds))]
        if min(chosen) < 0 or max(chosen) >= num_classes:
            raise UsageError(f"classes: {max(chosen)} is not one of this run's classes 0-{num_classes - 1}")
        return nn.functional.one_hot(torch.tensor(chosen), num_classes).float()


def load_run(folder: Path, model: str | None = None) -> Trained:
    """The newest state of a run, ready to use.

    model: the user's own file, for a run of one (others do without): a run is data from outside, so what it names is
    never executed.
    Raises UsageError when the folder is no run or holds no state yet, CountermarkError when it is damaged.
    """
    config = read_config(Path(folder))
    state = newest_state(Path(folder))
    if state is None:
        raise UsageError(f"{folder} holds no state yet; train it first")
    name = config["model"]
    if is_file(name) and model is None:
        raise UsageError(f"{folder} is of a model in a file; name it yourself: --model FILE (--against-model in train)")
    spec = find(model if model and is_file(name) else name)
    try:
        settings = settings_from_json(type(next(iter(spec.presets.values()))), config["settings"])
        with torch.device("meta"):  # shapes without memory: a stranger's run may claim networks of any size
            shapes = {name: _shapes(network.state_dict()) for name, network in spec.build(settings).items()}
    except (TypeError, ValueError, RuntimeError, AttributeError, MemoryError) as error:
        raise CountermarkError(f"{folder}: config.json has settings unknown to {spec.name} ({error})") from error
    groups, record = checkpoint.load_state(state)
    weights = {
        name: checkpoint.below(groups.get("averages" if name in spec.averaged else "networks", {}), name)
        for name in shapes
    }
    if shapes != {name: _shapes(tensors) for name, tensors in weights.items()}:
        raise CountermarkError(f"{state} belongs to other networks than its config.json says")
    networks = spec.build(settings)
    for name, network in networks.items():
        network.load_state_dict(weights[name])
        network.eval().requires_grad_(False)
    return Trained(spec, settings, config, networks, record["nimg"])


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in tensors.items()}
