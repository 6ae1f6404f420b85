"""What a look finds in real networks, and that nothing in them moves."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from countermark.core.spec import Spec
from countermark.data.image import PictureSet, Shuffled, load
from countermark.data.sources import open_source
from countermark.data.splits import part_of
from countermark.models import SPECS
from countermark.models.image.dcgan import SPEC as DCGAN
from countermark.training.looks import HELD_OUT, Looks, overfitting
from countermark.training.trainer import Trainer

DIGITS = load(open_source("digits"), 8)
OF_SAMPLES = ("coverage", "duplicates", "identical", "memorised")


def coloured(pictures: PictureSet, channels: int) -> PictureSet:
    return dataclasses.replace(pictures, images=pictures.images.repeat(channels, 3))


def trainer(spec: Spec = DCGAN, pictures: PictureSet = DIGITS, **changes: object) -> Trainer:
    fitting = {"channels": pictures.channels, "num_classes": pictures.num_classes, **changes}
    settings = dataclasses.replace(spec.presets["tiny"], **fitting)  # type: ignore[arg-type]
    return Trainer(spec, settings, Shuffled(pictures.part("generator"), 0), 0)


def looked(run: Trainer, spec: Spec = DCGAN, pictures: PictureSet = DIGITS) -> dict[str, float]:
    return Looks(spec, run.settings, pictures)(run)


def tensors(run: Trainer) -> dict[str, torch.Tensor]:
    return {f"{group}/{key}": t.clone() for group, found in run.state()[0].items() for key, t in found.items()}


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.kind == "image"], ids=lambda spec: spec.name)
def test_every_model_can_be_looked_at_and_nothing_moves(spec: Spec) -> None:
    preset = spec.presets["tiny"]
    pictures = load(open_source("digits"), preset.size)
    run = trainer(spec, pictures, num_classes=preset.num_classes, ema_halflife_nimg=0)
    run.advance(None)
    before = tensors(run)
    figures = looked(run, spec, pictures)
    assert set(figures) == {f"health/{name}" for name in (*OF_SAMPLES, "r_v", "r_v_low", "held_out")}
    assert all(np.isfinite(list(figures.values())))
    after = tensors(run)
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())
    assert run.networks["D"].training


def test_a_look_says_the_same_again_and_leaves_the_training_as_it_was() -> None:
    looked_at, other = trainer(ema_halflife_nimg=0), trainer(ema_halflife_nimg=0)
    looks = Looks(DCGAN, looked_at.settings, DIGITS)
    assert looks(looked_at) == looks(looked_at)
    looked_at.advance(None)
    other.advance(None)
    assert all(torch.equal(t, tensors(other)[key]) for key, t in tensors(looked_at).items())


def test_nothing_is_said_of_an_average_that_is_still_the_first_weights() -> None:
    run = trainer(ema_halflife_nimg=100)
    assert looked(run) == {}
    run.nimg = 200
    assert looked(run) != {}


def test_colour_and_odd_batches_are_looked_at_too() -> None:
    run = trainer(pictures=coloured(DIGITS, 3), batch=10, ema_halflife_nimg=0)
    assert len(looked(run, pictures=coloured(DIGITS, 3))) == len(OF_SAMPLES) + 3


def test_training_and_held_out_pictures_are_of_their_parts() -> None:
    looks = Looks(DCGAN, DCGAN.presets["tiny"], DIGITS)
    assert {part_of(DIGITS.units[i]) for i in looks.train} == {"generator"}
    assert {part_of(DIGITS.units[i]) for i in looks.held_out} == set(HELD_OUT)


def test_copies_are_counted() -> None:
    assert Looks(DCGAN, DCGAN.presets["tiny"], DIGITS).copies() == 0.0
    some = np.concatenate([np.arange(1000), np.arange(250).repeat(4)])
    twice = dataclasses.replace(DIGITS, images=DIGITS.images[some], classes=None, units=[DIGITS.units[i] for i in some])
    assert Looks(DCGAN, DCGAN.presets["tiny"], twice).copies() == pytest.approx(0.5, abs=0.05)


def test_sets_too_small_for_a_comparison_are_passed_over() -> None:
    chosen = [i for i, unit in enumerate(DIGITS.units) if part_of(unit) == "generator"][:2]
    pair = PictureSet("two", DIGITS.images[chosen], None, [], [DIGITS.units[i] for i in chosen])
    run = trainer(pictures=pair, num_classes=0, ema_halflife_nimg=0)
    assert looked(run, pictures=pair) == {"health/held_out": 0.0}


class Stubborn(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((1, 2, 3))


def test_a_user_s_discriminator_that_asks_for_other_things_is_not_asked() -> None:
    run = trainer(ema_halflife_nimg=0)
    run.networks["D"] = Stubborn()
    assert set(looked(run)) == {f"health/{name}" for name in (*OF_SAMPLES, "held_out")}


def test_r_v_by_hand() -> None:
    train, fake = torch.tensor([1.0, 1.2] * 32), torch.full((64,), -1.1)
    assert overfitting(train, train, fake)["r_v"] == 0.0
    held_out = torch.tensor([-1.2, -1.0] * 32)
    found = overfitting(train, held_out, fake)
    assert found["r_v"] == pytest.approx(1.0)
    assert found["r_v_low"] == pytest.approx(1 - 2 * 0.1 * (2 / 64) ** 0.5 / 2.2)
    # D takes fakes for training pictures: its spread is the scale.
    assert overfitting(train, held_out, train)["r_v"] == pytest.approx(22.0)
