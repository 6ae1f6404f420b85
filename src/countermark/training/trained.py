"""A trained generator: the averaged network of a run's newest state, sampled by seeds."""

from __future__ import annotations

import copy
import dataclasses
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
from countermark.nn.normalisation import gathering_statistics
from countermark.nn.style import StyleGenerator
from countermark.training.cures import cured
from countermark.training.run import newest_state, read_config, run_id, settings_from_json
from countermark.training.shipped import run_folder

BATCH = 64
BATCH_SIDE = 128  # of pictures in a batch of BATCH; larger ones come in smaller batches
MAX_TRUNCATION = 10.0
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

    def sample(
        self, seeds: Sequence[int], classes: Sequence[int] | None = None, truncation: float | None = None
    ) -> Tensor:
        """Pictures [N,C,H,W] in [-1,1], one a seed, the same in any batch; classes are drawn from the seeds if None.

        truncation: trades variety for quality, None for none (`codes`).
        Raises UsageError for a run without a generator, for classes that it does not know, and bad truncations.
        """
        return self.pictures(self.codes(seeds, classes, truncation), self.conditions(seeds, classes))

    @torch.no_grad()
    def codes(
        self, seeds: Sequence[int], classes: Sequence[int] | None = None, truncation: float | None = None
    ) -> Tensor:
        """Where the pictures of `seeds` lie in the space in which codes are mixed, moved and searched.

        That is W of a style-based generator, one w a layer: [N,num_ws,w_dim]; else z's own: [N,num_z].
        truncation: psi in W (arXiv:1812.04948, appendix B); for z the bound of its numbers (arXiv:1809.11096).
        """
        G = self.generator
        if truncation is not None and not 0 < truncation <= MAX_TRUNCATION:
            raise UsageError(f"truncation: {truncation:g} is not above 0 and up to {MAX_TRUNCATION:g}; try 0.7")
        num_z = self.spec.num_z(self.settings)
        if not isinstance(G, StyleGenerator):
            return latents(seeds, num_z, truncation)
        psi = 1.0 if truncation is None else truncation
        return G.mapping(latents(seeds, num_z), self.conditions(seeds, classes), psi)

    @torch.no_grad()
    def pictures(self, codes: Tensor, c: Tensor | None) -> Tensor:
        """Pictures [N,C,H,W] in [-1,1] of codes and one-hot classes [N,num_classes] (None without classes)."""
        num = max(BATCH * BATCH_SIDE**2 // max(self.settings.size, BATCH_SIDE) ** 2, 1)
        parts = [
            self.render(codes[i : i + num], None if c is None else c[i : i + num]) for i in range(0, len(codes), num)
        ]
        return torch.cat(parts).float()

    def render(self, codes: Tensor, c: Tensor | None) -> Tensor:
        """`pictures` in one batch, through which gradients flow."""
        G = self.generator
        return G.synthesis(codes) if isinstance(G, StyleGenerator) else G(codes, c)

    @property
    def generator(self) -> nn.Module:
        if "G" not in self.networks:
            raise UsageError(f"{self.spec.name} generates nothing; give a run of an image model")
        return self.networks["G"]

    def with_standing_statistics(self, truncation: float | None = None, num_batches: int = 16) -> Trained:
        """The same, but for batch normalisation by the means over batches of its own pictures (arXiv:1809.11096, C).

        The statistics that training leaves are the average's, as its weights are, and are those of whole z: these are
        for `truncation`, and for averages that were left without, such as those of other programs.
        """
        other = dataclasses.replace(self, networks={**self.networks, "G": copy.deepcopy(self.generator)})
        first = NUM_MEASURED * (1 + len(MEASURED))
        with gathering_statistics(other.generator):
            other.sample(range(first, first + num_batches * BATCH), truncation=truncation)
        return other

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
        if unknown := sorted(set(chosen) - set(range(num_classes))):
            raise UsageError(f"classes: {unknown[0]} is not one of this run's classes 0-{num_classes - 1}")
        return nn.functional.one_hot(torch.tensor(chosen), num_classes).float()


def load_run(run: str | Path, model: str | None = None) -> Trained:
    """The newest state of a run folder, or of a trained model that ships (MODEL@SET), ready to use.

    What ships holds averaged networks alone, in bfloat16; here they are float32 again.
    model: the user's own file, for a run of one (others do without): a run is data from outside, so what it names is
    never executed.
    Raises UsageError when the folder is no run or holds no state yet, CountermarkError when it is damaged.
    """
    folder = run_folder(run)
    config = read_config(folder)
    state = newest_state(folder)
    if state is None:
        raise UsageError(f"{folder} holds no state yet; train it first")
    name = config["model"]
    if is_file(name) and model is None:
        raise UsageError(f"{folder} is of a model in a file; name it yourself: --model FILE (--against-model in train)")
    spec = find(model if model and is_file(name) else name)
    try:
        settings = settings_from_json(type(next(iter(spec.presets.values()))), config["settings"])
        with torch.device("meta"):  # shapes without memory: a stranger's run may claim networks of any size
            shapes = {
                name: _shapes(network.state_dict()) for name, network in cured(spec, settings).build(settings).items()
            }
    except (TypeError, ValueError, RuntimeError, AttributeError, MemoryError) as error:
        raise CountermarkError(f"{folder}: config.json has settings unknown to {spec.name} ({error})") from error
    groups, record = checkpoint.load_state(state)
    if spec.averaged and "networks" not in groups:  # a trained model that ships
        shapes = {name: shapes[name] for name in spec.averaged}
    weights = {
        name: checkpoint.below(groups.get("averages" if name in spec.averaged else "networks", {}), name)
        for name in shapes
    }
    if shapes != {name: _shapes(tensors) for name, tensors in weights.items()}:
        raise CountermarkError(f"{state} belongs to other networks than its config.json says")
    networks = {name: network for name, network in cured(spec, settings).build(settings).items() if name in shapes}
    for name, network in networks.items():
        network.load_state_dict(weights[name])
        network.eval().requires_grad_(False)
    return Trained(spec, settings, config, networks, record["nimg"])


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in tensors.items()}
