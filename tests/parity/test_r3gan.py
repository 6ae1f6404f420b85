"""R3GAN equals the official networks and the official training step, gradients included."""

from dataclasses import dataclass

import torch
from golden import Golden, gradient_head
from torch import Tensor

from countermark.core.spec import Settings, Step
from countermark.models.image.r3gan import (
    Discriminator,
    Generator,
    discriminator_step,
    generator_step,
    rename_official,
)


@dataclass
class FixedLatents(Step):
    """A step whose z is the fixture's."""

    fixed_z: Tensor

    def z(self) -> Tensor:
        return self.fixed_z


def _network(kind: type[Generator] | type[Discriminator], config: dict) -> Generator | Discriminator:
    latents = {"num_z": config["NoiseDimension"]} if kind is Generator else {}
    return kind(
        **latents,
        widths=config["WidthPerStage"],
        cardinalities=config["CardinalityPerStage"],
        blocks=config["BlocksPerStage"],
        expansion=config["ExpansionFactor"],
        num_classes=config["c_dim"],
        num_embed=config.get("ConditionEmbeddingDimension", 0),
    )


def _step(golden: Golden) -> Step:
    networks = {"G": _network(Generator, golden.config["G"]), "D": _network(Discriminator, golden.config["D"])}
    for name, network in networks.items():
        golden.load(network, f"{name}.", rename_official)
    x, c = golden.io["x_real"], golden.io["c"] if golden.config["G"]["c_dim"] else None
    return FixedLatents(networks, x, c, Settings(size=x.shape[-1]), 0, 0, torch.Generator(), golden.io["z"])


def _train_only(step: Step, name: str) -> None:
    for other, network in step.networks.items():
        network.requires_grad_(other == name)


def test_r3gan_equals_the_official_one() -> None:
    golden = Golden("r3gan", inputs=("z", "c", "x_real"))
    step = _step(golden)
    G, D = step.networks["G"], step.networks["D"]
    with torch.no_grad():
        golden.check("img", G(golden.io["z"], step.c))
        golden.check("logits", D(golden.io["img"], step.c))

    _train_only(step, "D")
    out = discriminator_step(step, golden.config["gamma"])
    out["loss"].backward()
    for i, name in enumerate(("adversarial", "relativistic", "r1", "r2")):
        golden.check(f"d_step_out{i}", out[name])
    golden.check("d_grad_head", gradient_head(D))
    assert all(p.grad is None for p in G.parameters())

    D.zero_grad(set_to_none=True)
    _train_only(step, "G")
    out = generator_step(step)
    out["loss"].backward()
    for i, name in enumerate(("adversarial", "relativistic")):
        golden.check(f"g_step_out{i}", out[name])
    golden.check("g_grad_head", gradient_head(G))
    assert all(p.grad is None for p in D.parameters())
    assert not golden.unchecked
