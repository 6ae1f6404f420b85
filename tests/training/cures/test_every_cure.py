"""The sweep: every cure around every model's preset `tiny`, refused with a reason or trained for some steps."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from countermark.core.errors import UsageError
from countermark.core.spec import Settings, Spec
from countermark.models import SPECS
from countermark.training.cures import CURES, cured
from countermark.training.cures.cure import Cure
from countermark.training.trainer import Trainer
from tests.training.test_every_model_resumes import Noise

GANS = [spec for spec in SPECS if spec.kind == "image"]
NUM_STEPS = 4
BINDING = {name: f"{name}=1e-3" for name in ("clip_gradients", "clip_weights")}  # where defaults leave alone


def trainer(spec: Spec, cures: tuple[str, ...], batch: int = 8) -> Trainer:
    settings = dataclasses.replace(spec.presets["tiny"], cures=cures, batch=batch)
    return Trainer(spec, settings, Noise(settings.size, settings.channels, settings.num_classes), 0)


def refused(spec: Spec, settings: Settings) -> str:
    try:
        cured(spec, settings).build(settings)
    except UsageError as error:
        return str(error)
    return ""


def state(run: Trainer) -> dict[str, torch.Tensor]:
    return {f"{group}/{key}": t.clone() for group, tensors in run.state()[0].items() for key, t in tensors.items()}


@pytest.mark.parametrize("spec", GANS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("cure", CURES, ids=lambda cure: cure.name)
def test_a_cure_fits_and_trains_or_says_why_not(spec: Spec, cure: Cure) -> None:
    words = (BINDING.get(cure.name, cure.name),)
    settings = dataclasses.replace(spec.presets["tiny"], cures=words, batch=8)
    if why := refused(spec, settings):
        assert why.startswith(f"cures: {cure.name}")
        assert why.endswith("leave it out")
        return
    with_it, again, without = (trainer(spec, cures) for cures in (words, words, ()))
    for _ in range(NUM_STEPS):
        for run in (with_it, again, without):
            run.advance(None)
    means = with_it.means()
    first, second, plain = state(with_it), state(again), state(without)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first), "it does not repeat"
    assert any(not torch.equal(first[key], plain[key]) for key in first if key in plain), "it changes nothing"
    assert means


@pytest.mark.parametrize("cure", CURES, ids=lambda cure: cure.name)
def test_a_cured_training_resumes_bit_for_bit(cure: Cure) -> None:
    spec = next(
        spec
        for spec in GANS
        if not refused(spec, dataclasses.replace(spec.presets["tiny"], cures=(cure.name,), batch=8))
    )
    straight, first, second = (trainer(spec, (cure.name,)) for _ in range(3))
    for _ in range(4):
        straight.advance(None)
    for _ in range(2):
        first.advance(None)
    groups, record = first.state()
    second.restore(groups, {**record, "nimg": first.nimg})
    for _ in range(2):
        second.advance(None)
    one, other = state(straight), state(second)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
