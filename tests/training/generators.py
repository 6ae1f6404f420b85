"""Every generator at its preset `tiny`, with weights that nothing has trained."""

import dataclasses

import torch

from countermark.core.seeds import generator
from countermark.core.spec import Spec
from countermark.models import SPECS
from countermark.training.trained import Trained

GENERATORS = [spec for spec in SPECS if spec.kind == "image"]


def untrained(spec: Spec, **changed: object) -> Trained:
    """Perturbed, so that what starts at zero counts too; `changed` settings."""
    torch.manual_seed(0)
    settings = dataclasses.replace(spec.presets["tiny"], **changed)  # type: ignore[arg-type]
    networks = spec.build(settings)
    for network in networks.values():
        network.eval().requires_grad_(False)
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator(0, "perturbation"))
    return Trained(spec, settings, {"model": spec.name}, networks, 0)
