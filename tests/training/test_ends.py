"""Trainings that come to an end of a GAN's kind are named in time, and sound ones are not."""

import dataclasses
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from countermark.core import checkpoint
from countermark.core.errors import CountermarkError
from countermark.core.spec import Adam, Phase, Spec, Step
from countermark.data.image import PictureSet, Shuffled, load
from countermark.data.sources import open_source
from countermark.losses.adversarial import saturating_g
from countermark.losses.steps import generator_step
from countermark.models import find
from countermark.models.image.dcgan import SPEC as DCGAN
from countermark.nn.dcgan import Generator
from countermark.training import loop
from countermark.training.looks import Looks
from countermark.training.loop import Length, train
from countermark.training.run import Journal
from countermark.training.trainer import Trainer

DIGITS = load(open_source("digits"), 8)
RUNNING: list[Trainer] = []  # the newest last


def some(num: int, copies: int = 1) -> PictureSet:
    chosen = [i for i in range(num) for _ in range(copies)]
    units = [DIGITS.units[i] for i in chosen]
    return PictureSet("some", DIGITS.images[chosen], None, [], units)


def run(
    folder: Path,
    nimg: int,
    spec: Spec = DCGAN,
    pictures: PictureSet = DIGITS,
    seed: int = 0,
    progress: Callable[..., None] | None = None,
    **changes: Any,
) -> list[dict[str, Any]]:
    """The rows of findings of a training of the tiny preset."""
    fitting = {"num_classes": pictures.num_classes, **changes}
    settings = dataclasses.replace(spec.presets["tiny"], **fitting)
    RUNNING.append(Trainer(spec, settings, Shuffled(pictures.part("generator"), seed), seed))
    train(RUNNING[-1], folder, Length(nimg=nimg), look=Looks(spec, settings, pictures), progress=progress)
    return [row for row in Journal(folder / "metrics.jsonl").rows() if "health" in row]


def names(rows: list[dict[str, Any]]) -> set[str]:
    return {row["health"] for row in rows}


class Collapsed(Generator):
    """Two pictures and no more."""

    def forward(self, z: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(z.sign()[:, :1].expand_as(z), c)


def collapsed(settings: Any) -> dict[str, torch.nn.Module]:
    networks = DCGAN.build(settings)
    networks["G"].__class__ = Collapsed
    return networks


def with_phases(change: Callable[[Phase], Phase]) -> Spec:
    return dataclasses.replace(DCGAN, phases=lambda settings: tuple(map(change, DCGAN.phases(settings))))


def hopeless(phase: Phase) -> Phase:
    """The minimax game with a D that learns much faster than G."""
    if phase.label == "D":
        return dataclasses.replace(phase, optimiser=Adam(5e-3, 0.5, 0.999))
    return dataclasses.replace(phase, function=partial(generator_step, loss=saturating_g), optimiser=Adam(1e-6))


@pytest.mark.parametrize(
    ("name", "nimg", "how"),
    [
        ("mode_collapse", 6_200, {"spec": dataclasses.replace(DCGAN, build=collapsed), "num_classes": 0}),
        ("exploding_gradients", 1_600, {"lr": 1.0}),
        ("vanishing_gradients", 14_000, {"spec": with_phases(hopeless)}),
        ("overfitting", 8_000, {"pictures": some(25)}),
        ("memorisation", 6_000, {"pictures": some(12), "lr": 2e-3}),
        ("duplicates", 500, {"pictures": some(100, copies=10)}),
    ],
)
def test_what_is_provoked_is_named(tmp_path: Path, name: str, nimg: int, how: dict[str, Any]) -> None:
    rows = run(tmp_path, nimg, **how)
    assert name in names(rows), rows
    row = next(row for row in rows if row["health"] == name)
    assert set(row) == {"nimg", "health", "figure", "advice"}
    assert row["figure"] >= 0


@pytest.mark.parametrize(
    ("model", "nimg", "seed"),
    [("dcgan", 8_000, 0), ("dcgan", 8_000, 1), ("wgan", 8_000, 0), ("r3gan", 4_000, 0), ("stylegan2", 2_500, 0)],
)
def test_sound_trainings_raise_nothing(tmp_path: Path, model: str, nimg: int, seed: int) -> None:
    assert run(tmp_path, nimg, spec=find(model), seed=seed) == []


# --- Numbers that are not finite


def poisoned(at_nimg: int, times: int) -> Spec:
    """D's loss is no number at image `at_nimg`, until the run has gone back `times` times."""

    def change(phase: Phase) -> Phase:
        def function(step: Step) -> dict[str, torch.Tensor]:
            terms = phase.function(step)
            if phase.label == "D" and step.nimg == at_nimg and RUNNING[-1].rollbacks < times:
                terms["loss"] = terms["loss"] * torch.nan
            return terms

        return dataclasses.replace(phase, function=function)

    return with_phases(change)


def contents(folder: Path) -> dict[str, bytes]:
    files = [*folder.glob("state-*/*"), folder / "metrics.jsonl"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_run_goes_back_once_with_smaller_steps_and_other_chance(tmp_path: Path) -> None:
    rows = run(tmp_path, 3_200, poisoned(2_400, times=1))
    assert [(row["nimg"], row["health"], row["figure"]) for row in rows] == [(2_400, "nan", 2_560)]
    known = [row["nimg"] for row in Journal(tmp_path / "metrics.jsonl").rows()]
    assert known == sorted(known)  # what came after the good state is gone
    groups, record = checkpoint.load_state(tmp_path / "state-3200")
    assert record["rollbacks"] == 1
    assert all(torch.isfinite(tensor).all() for tensors in groups.values() for tensor in tensors.values())


def test_the_second_time_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(CountermarkError, match=r"D/.* became nan before image .*what was written before stands"):
        run(tmp_path, 3_200, poisoned(2_400, times=2))
    rows = Journal(tmp_path / "metrics.jsonl").rows()
    assert [row["health"] for row in rows if "health" in row] == ["nan"]
    assert (tmp_path / "state-2400").exists()


def test_without_a_state_it_goes_back_to_the_start(tmp_path: Path) -> None:
    rows = run(tmp_path, 6_440, poisoned(160, times=1))
    assert [(row["nimg"], row["health"], row["figure"]) for row in rows] == [(0, "nan", 320)]
    assert checkpoint.load_state(tmp_path / "state-6440")[1]["rollbacks"] == 1


def test_smaller_steps_and_other_chance() -> None:
    def stepped(rollbacks: int) -> Trainer:
        trainer = Trainer(DCGAN, DCGAN.presets["tiny"], Shuffled(some(100), 0), 0)
        trainer.rollbacks = rollbacks
        trainer.advance(None)
        return trainer

    one, other = stepped(0), stepped(1)
    rates = [optimiser.param_groups[0]["lr"] for run in (one, other) for optimiser in run.optimisers.values()]
    assert rates[2:] == [rate / 2 for rate in rates[:2]]
    assert one.sums["D/logits_fake"] != other.sums["D/logits_fake"]


class Killed(Exception):
    pass


@pytest.mark.parametrize("at_nimg", [32, 1_200])
def test_an_interrupted_run_with_a_rollback_ends_where_an_uninterrupted_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_nimg: int
) -> None:
    run(tmp_path / "straight", 1_600, poisoned(at_nimg, times=1))
    monkeypatch.setattr(loop, "STATE_EVERY_S", 0)  # a state after every batch, so that every stop leaves another one

    def stop(trainer: Trainer, fraction: float, means: object) -> None:
        if trainer.nimg >= stops[0]:
            stops.pop(0)
            raise Killed

    stops = [48, at_nimg - 16, at_nimg + 48, 1_000, 1_400, 10**9]
    while not (tmp_path / "killed" / "state-1600").exists():
        with suppress(Killed):
            run(tmp_path / "killed", 1_600, poisoned(at_nimg, times=1), progress=stop)
    assert len(stops) == 1
    straight, again = contents(tmp_path / "straight"), contents(tmp_path / "killed")
    assert again["state-1600/networks.safetensors"] == straight["state-1600/networks.safetensors"]
    assert again["state-1600/state.json"] == straight["state-1600/state.json"]
    assert again["metrics.jsonl"] == straight["metrics.jsonl"]


def test_findings_are_the_same_after_a_resume(tmp_path: Path) -> None:
    for folder, lengths in (("straight", [4_800]), ("resumed", [1_600, 3_680, 4_800])):
        for nimg in lengths:
            run(tmp_path / folder, nimg, pictures=some(12), lr=2e-3)
    found = [Journal(tmp_path / folder / "metrics.jsonl").rows() for folder in ("straight", "resumed")]
    assert found[0] == found[1]
    assert any("health" in row for row in found[0])
