"""The sweep: what every model must do, on its preset `tiny`.

After a change that is meant to change outputs, write the golden values anew and look at the difference:
    COUNTERMARK_WRITE_GOLDEN=1 python -m pytest tests/test_every_model.py
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from countermark.core.checkpoint import load_state, save_state
from countermark.core.seeds import generator
from countermark.core.spec import Phase, Settings, Spec, Step
from countermark.models import SPECS

GOLDEN = Path(__file__).parent / "golden" / "every_model.json"
NUM = 4

# A constant added to a critic cancels in its loss, and in a hinge loss inside the margins; published networks have it.
CANCELLED = {name: {"D": {"linear.bias"}} for name in ("wgan_gp", "sngan", "sagan", "biggan", "biggan_deep")}

every_model = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)


def _networks(spec: Spec) -> tuple[Settings, dict[str, nn.Module]]:
    """Freshly built and then perturbed, so that parts which start at zero count too."""
    settings = spec.presets["tiny"]
    torch.manual_seed(0)
    networks = spec.build(settings)
    perturbation = generator(0, "perturbation")
    for network in networks.values():
        for parameter in network.parameters():
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=perturbation)
    return settings, networks


def _step(spec: Spec, settings: Settings, networks: dict[str, nn.Module]) -> Step:
    x = torch.rand(NUM, settings.channels, settings.size, settings.size, generator=generator(0, "x")) * 2 - 1
    c = torch.eye(settings.num_classes)[torch.arange(NUM) % settings.num_classes] if settings.num_classes else None
    return Step(networks, x, c, settings, spec.num_z(settings), 0, generator(0, "step"))


def _outputs(spec: Spec, networks: dict[str, nn.Module], step: Step) -> dict[str, Tensor]:
    """What each network returns in evaluation mode, by name."""
    networks = {name: network.eval() for name, network in networks.items()}
    with torch.no_grad():
        if spec.kind == "detect":
            return {"F": networks["F"](step.x)}
        z = torch.randn(NUM, step.num_z, generator=generator(0, "z"))
        return {"G": networks["G"](z, step.c), "D": networks["D"](step.x, step.c)}


def _run(phase: Phase, step: Step) -> dict[str, Tensor]:
    """A phase as the loop runs it: gradients for its own network only."""
    for name, network in step.networks.items():
        network.zero_grad(set_to_none=True)
        network.requires_grad_(name == phase.network)
    terms = phase.function(step)
    terms["loss"].backward()
    return terms


@every_model
def test_forward_is_finite_and_shaped(spec: Spec) -> None:
    settings, networks = _networks(spec)
    outputs = _outputs(spec, networks, _step(spec, settings, networks))
    for name, output in outputs.items():
        pictures = (NUM, settings.channels, settings.size, settings.size)
        assert output.shape == (pictures if name == "G" else (NUM,))
        assert output.isfinite().all()
        assert output.std() > 0


@every_model
def test_every_parameter_gets_a_gradient_from_its_own_phases_only(spec: Spec) -> None:
    settings, networks = _networks(spec)
    step = _step(spec, settings, networks)
    reached: dict[str, set[str]] = {name: set() for name in networks}
    for phase in spec.phases(settings):
        terms = _run(phase, step)
        for name, term in terms.items():
            assert term.isfinite().all(), f"{phase.label}/{name}"
        for name, network in networks.items():
            found = {key for key, p in network.named_parameters() if p.grad is not None and p.grad.any()}
            assert name == phase.network or not found, f"{phase.label} leaves gradients in {name}"
            reached[name] |= found
    for name, network in networks.items():
        cancelled = CANCELLED.get(spec.name, {}).get(name, set())
        assert reached[name] | cancelled == {key for key, _ in network.named_parameters()}


@every_model
def test_a_few_updates_lower_the_loss_on_one_batch(spec: Spec) -> None:
    """Each phase alone, on a fixed batch and fixed noise: its optimiser must go downhill."""
    for phase in spec.phases(spec.presets["tiny"]):
        settings, networks = _networks(spec)
        optimiser = phase.optimiser.build(networks[phase.network].parameters())
        losses = []
        for _ in range(10):
            torch.manual_seed(1)  # the same dropout
            losses.append(_run(phase, _step(spec, settings, networks))["loss"].item())
            optimiser.step()
        assert losses[-1] < losses[0], phase.label


@every_model
def test_phases_repeat_bit_for_bit(spec: Spec) -> None:
    """All randomness comes from the step's generator and torch's global one, which the loop seeds."""
    for phase in spec.phases(spec.presets["tiny"]):
        results = []
        for _ in range(2):
            settings, networks = _networks(spec)
            terms = _run(phase, _step(spec, settings, networks))
            gradients = [p.grad for p in networks[phase.network].parameters() if p.grad is not None]
            results.append([terms["loss"].detach(), *gradients])
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@every_model
def test_golden_output(spec: Spec) -> None:
    settings, networks = _networks(spec)
    outputs = _outputs(spec, networks, _step(spec, settings, networks))
    ours = {name: _summary(output) for name, output in outputs.items()}
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("COUNTERMARK_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps({**golden, spec.name: ours}, indent=1, sort_keys=True) + "\n")
        pytest.skip(f"wrote {spec.name} to {GOLDEN.name}")
    assert golden[spec.name].keys() == ours.keys()
    for name, values in ours.items():
        scale = golden[spec.name][name]["std"]
        assert values["head"] == pytest.approx(golden[spec.name][name]["head"], abs=1e-4 * scale)
        assert values["mean"] == pytest.approx(golden[spec.name][name]["mean"], abs=1e-4 * scale)
        assert values["std"] == pytest.approx(scale, rel=1e-4)


def _summary(output: Tensor) -> dict:
    flat = output.double().flatten()
    return {"head": [round(v, 8) for v in flat[:6].tolist()], "mean": flat.mean().item(), "std": flat.std().item()}


@every_model
def test_round_trip_through_a_checkpoint(spec: Spec, tmp_path: Path) -> None:
    settings, networks = _networks(spec)
    for phase in spec.phases(settings):  # moves the running statistics
        _run(phase, _step(spec, settings, networks))
    save_state(tmp_path, 7, {name: network.state_dict() for name, network in networks.items()}, {})
    groups, _ = load_state(tmp_path / "state-7")
    torch.manual_seed(1)
    restored = spec.build(settings)
    for name, network in restored.items():
        network.load_state_dict(groups[name])
    step = _step(spec, settings, networks)
    before, after = _outputs(spec, networks, step), _outputs(spec, restored, step)
    for name in before:
        assert torch.equal(before[name], after[name])
