import dataclasses
import itertools
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from countermark.core import checkpoint
from countermark.core.errors import CountermarkError, UsageError
from countermark.core.pixels import to_tensor, to_uint8
from countermark.core.spec import Adam, Phase
from countermark.models.image.dcgan import SPEC as DCGAN
from countermark.training import loop
from countermark.training.loop import Length, train
from countermark.training.run import locked
from countermark.training.trainer import Trainer
from tests.training.test_every_model_resumes import Noise as Digits
from tests.training.toy import SPEC, Noise

TINY = SPEC.presets["tiny"]


def trainer(seed: int = 0, **changes: object) -> Trainer:
    return Trainer(SPEC, dataclasses.replace(TINY, **changes), Noise(), seed)


def everything(state: tuple) -> dict:
    groups, record = state
    return {f"{g}/{k}": t.clone() for g, tensors in groups.items() for k, t in tensors.items()} | {
        "record": str(record)
    }


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(v, other[k]) if isinstance(v, torch.Tensor) else v == other[k] for k, v in one.items()
    )


def test_pixels_survive_the_edges() -> None:
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    tensor = to_tensor(images)
    assert (tensor.min(), tensor.max(), tensor.shape) == (-1, 1, (1, 1, 16, 16))
    assert np.array_equal(to_uint8(tensor), images)
    assert to_uint8(torch.tensor([[[[-5.0, 5.0]]]])).ravel().tolist() == [0, 255]


def test_a_restored_trainer_goes_on_bit_for_bit() -> None:
    straight, first, second = trainer(), trainer(), trainer()
    for _ in range(7):
        straight.advance(None)
    for _ in range(3):
        first.advance(None)
    groups, record = first.state()
    second.restore(groups, {**record, "nimg": first.nimg})
    for _ in range(4):
        second.advance(None)
    assert same(everything(straight.state()), everything(second.state()))


def test_seeds_give_other_trainings() -> None:
    one, other = trainer(0), trainer(1)
    assert not same(everything(one.state()), everything(other.state()))


def test_intervals_skip_iterations() -> None:
    run = trainer()
    run.advance(None)
    before = run.networks["G"].linear.weight.clone()
    run.advance(None)
    assert torch.equal(run.networks["G"].linear.weight, before)
    run.advance(None)
    assert not torch.equal(run.networks["G"].linear.weight, before)


def test_accumulated_gradients_are_those_of_the_whole_batch() -> None:
    """Without chance in D, four parts of two samples give the gradient of eight."""

    def mean_square(step):  # type: ignore[no-untyped-def]
        return {"loss": step.networks["D"].linear(step.x.flatten(1)).square().mean()}

    spec = dataclasses.replace(SPEC, phases=lambda settings: (Phase("D", Adam(0.1), mean_square),))
    weights = []
    for accumulate in (1, 4):
        run = Trainer(spec, dataclasses.replace(TINY, accumulate=accumulate), Noise(), 0)
        for _ in range(3):
            run.advance(None)
        weights.append(run.networks["D"].linear.weight)
    assert torch.allclose(*weights, rtol=1e-4)


def test_the_average_is_the_weighted_sum_of_the_past() -> None:
    run = trainer(ema_halflife_nimg=8)  # the batch: every step halves the past's weight
    start = run.averages["G"].linear.weight.clone()
    seen = []
    for _ in range(3):
        run.advance(None)
        seen.append(run.networks["G"].linear.weight.clone())
    expected = start / 8 + seen[0] / 8 + seen[1] / 4 + seen[2] / 2
    assert torch.allclose(run.averages["G"].linear.weight, expected, atol=1e-6)
    assert torch.equal(run.averages["G"].norm.running_mean, run.networks["G"].norm.running_mean)


def test_running_statistics_are_averaged_where_the_spec_says_so() -> None:
    settings = dataclasses.replace(TINY, ema_halflife_nimg=8)
    run = Trainer(dataclasses.replace(SPEC, average_buffers=True), settings, Noise(), 0)
    seen = []
    for _ in range(3):
        run.advance(None)
        seen.append(run.networks["G"].norm.running_mean.clone())
    average = run.averages["G"].norm
    assert torch.allclose(average.running_mean, seen[0] / 8 + seen[1] / 4 + seen[2] / 2, atol=1e-7)
    assert torch.equal(average.num_batches_tracked, run.networks["G"].norm.num_batches_tracked)


def test_a_half_life_of_nothing_copies() -> None:
    run = trainer(ema_halflife_nimg=0)
    run.advance(None)
    assert torch.equal(run.averages["G"].linear.weight, run.networks["G"].linear.weight)


def test_clipping_and_the_after_hook_run() -> None:
    norms = []

    def after(network: nn.Module) -> None:
        norms.append(sum(float(p.grad.square().sum()) for p in network.parameters()) ** 0.5)

    phases = tuple(dataclasses.replace(p, clip_grad_norm=1e-3, after=after) for p in SPEC.phases(TINY))
    run = Trainer(dataclasses.replace(SPEC, phases=lambda settings: phases), TINY, Noise(), 0)
    run.advance(None)
    assert norms == pytest.approx([1e-3, 1e-3], rel=1e-2)


@pytest.mark.parametrize("nimg", [5, 64, 100])
def test_the_last_state_bears_the_length_asked_for(tmp_path: Path, nimg: int) -> None:
    assert train(trainer(), tmp_path, Length(nimg=nimg)) == tmp_path / f"state-{nimg}"
    assert len(checkpoint.states(tmp_path)) <= 2


def test_the_same_call_again_changes_nothing_and_a_longer_one_goes_on(tmp_path: Path) -> None:
    train(trainer(), tmp_path, Length(nimg=160))
    written = {path.name: path.read_bytes() for path in (tmp_path / "state-160").iterdir()}
    train(trainer(), tmp_path, Length(nimg=160))
    assert {path.name: path.read_bytes() for path in (tmp_path / "state-160").iterdir()} == written
    assert train(trainer(), tmp_path, Length(nimg=320)).name == "state-320"


def test_time_ends_a_training_too(tmp_path: Path) -> None:
    marks = []
    last = train(trainer(), tmp_path, Length(seconds=0.5), snapshot=lambda t, mark: marks.append(mark) or {})
    assert last.exists()
    assert marks == sorted(set(marks))
    assert marks[-1] == loop.NUM_MARKS


@pytest.mark.parametrize("tick_s", [0.07, 0.11, 0.13, 0.3])
def test_the_last_mark_comes_however_the_clock_ticks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tick_s: float
) -> None:
    """A clock that goes on with every look at it must not pass the end unseen, between a mark and the loop's end."""
    ticks = itertools.count()
    monkeypatch.setattr(loop.time, "monotonic", lambda: tick_s * next(ticks))
    marks = []
    train(trainer(), tmp_path, Length(seconds=5), snapshot=lambda t, mark: marks.append(mark) or {})
    assert marks[-1] == loop.NUM_MARKS


def test_snapshots_come_twenty_times_and_their_figures_are_kept(tmp_path: Path) -> None:
    marks = []
    train(trainer(), tmp_path, Length(nimg=800), snapshot=lambda t, mark: marks.append(mark) or {"fd": float(mark)})
    assert marks == list(range(21))
    rows = loop.Journal(tmp_path / "metrics.jsonl").rows()
    assert [row["fd"] for row in rows if "fd" in row] == marks
    assert {"D/loss", "D/logits_real", "D/grad_norm", "G/loss", "G/grad_norm"} <= {key for row in rows for key in row}
    assert "elapsed_s" not in str(rows)


def test_numbers_that_are_not_finite_end_the_run_and_leave_its_good_states(tmp_path: Path) -> None:
    with pytest.raises(CountermarkError, match=r"became (nan|inf).*what was written before stands"):
        train(trainer(lr=1e30), tmp_path, Length(nimg=8000))
    for state in checkpoint.states(tmp_path):
        groups, _ = checkpoint.load_state(state)
        assert all(torch.isfinite(tensor).all() for group in groups.values() for tensor in group.values())


def test_phases_that_would_share_their_randomness_are_refused() -> None:
    twice = dataclasses.replace(SPEC, phases=lambda settings: SPEC.phases(settings)[:1] * 2)
    with pytest.raises(ValueError, match="names of their own"):
        Trainer(twice, TINY, Noise(), 0)


def test_a_torn_line_of_times_does_not_stop_a_run(tmp_path: Path) -> None:
    train(trainer(), tmp_path, Length(nimg=80))
    with (tmp_path / "timing.jsonl").open("a") as stream:
        stream.write('{"nimg": 8')
    assert train(trainer(), tmp_path, Length(nimg=160)).name == "state-160"


def augmented(**changes: object) -> Trainer:
    return Trainer(DCGAN, dataclasses.replace(DCGAN.presets["tiny"], augment="bgc", **changes), Digits(8, 1, 0), 0)


def test_the_signs_of_the_discriminator_on_reals_steer_the_augmentation() -> None:
    run = augmented(accumulate=2)
    for _ in range(5):
        run.advance(None)
    state = run.networks["augment"].state_dict()
    assert state["num"] == 16  # the fifth batch; the first four have moved p
    assert run.means()["augment/p"] == pytest.approx(sum([0] * 3 + [state["p"].item()] * 2) / 5)
    assert state["p"] in (0, torch.tensor(64 / 500_000))


def test_a_run_can_start_from_one_without_augmentation_and_the_other_way_round() -> None:
    plain = Trainer(DCGAN, DCGAN.presets["tiny"], Digits(8, 1, 0), 1)
    with_p = augmented(augment_p=0.5)
    for one, other in ((plain, with_p), (with_p, plain)):
        one.adopt(other.state()[0])
        assert torch.equal(one.networks["G"].main[0].weight, other.networks["G"].main[0].weight)


def test_augmentation_is_refused_where_it_would_do_nothing() -> None:
    with pytest.raises(ValueError, match="no place for augment=bgc"):
        trainer(augment="bgc")


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(UsageError, match="another process"):
        train(trainer(), tmp_path, Length(nimg=8))


@pytest.mark.parametrize("name", ["timing.jsonl", "metrics.jsonl"])
def test_links_and_pipes_in_a_stranger_s_run_are_refused(tmp_path: Path, name: str) -> None:
    """A pipe would hang the training, a link would write elsewhere."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(UsageError, match="is a link or a device"):
        train(trainer(), tmp_path, Length(nimg=8))
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to(tmp_path.parent / "elsewhere")
    with pytest.raises(UsageError, match="is a link or a device"):
        train(trainer(), tmp_path, Length(nimg=8))


@pytest.mark.parametrize("sums", [{"a": ["x", 0]}, {"a": [1.0]}, {"a": [1.0, 2, 3]}, {"a": [None, 1]}])
def test_sums_that_no_training_leaves_are_one_line(tmp_path: Path, sums: dict) -> None:
    train(trainer(), tmp_path, Length(nimg=80))
    groups, record = checkpoint.load_state(tmp_path / "state-80")
    shutil.rmtree(tmp_path / "state-80")
    kept = {key: value for key, value in record.items() if key in ("iteration", "metrics_bytes")}
    checkpoint.save_state(tmp_path, 80, groups, {**kept, "sums": sums})
    with pytest.raises(CountermarkError, match="damaged or foreign"):
        train(trainer(), tmp_path, Length(nimg=160))


def test_a_damaged_state_is_not_trained_on(tmp_path: Path) -> None:
    last = train(trainer(), tmp_path, Length(nimg=80))
    (last / "networks.safetensors").write_bytes(b"x")
    with pytest.raises(CountermarkError, match="damaged"):
        train(trainer(), tmp_path, Length(nimg=160))


def test_a_state_of_other_networks_is_refused(tmp_path: Path) -> None:
    groups, _ = trainer().state()
    groups["networks"]["G.linear.weight"] = torch.zeros(2, 2)
    with pytest.raises(CountermarkError, match="other networks"):
        trainer().adopt(groups)


def test_a_full_disk_is_one_line_and_the_last_good_state_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(trainer(), tmp_path, Length(nimg=80))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("countermark.core.files.os.fsync", full)
    with pytest.raises(CountermarkError, match="No space left"):
        train(trainer(), tmp_path, Length(nimg=160))
    monkeypatch.undo()
    checkpoint.load_state(tmp_path / "state-80")
    train(trainer(), tmp_path, Length(nimg=160))
    assert not list(tmp_path.glob(".partial*"))
