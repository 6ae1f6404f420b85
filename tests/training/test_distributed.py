"""Two processes, or two parts, on the same batch are one process on the whole batch, in every network."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.core import checkpoint
from countermark.core.errors import UsageError
from countermark.core.spec import Spec
from countermark.data.image import PictureSet, Shuffled
from countermark.jobs.train import train_model
from countermark.models import SPECS, find
from countermark.training.distributed import LOST, Ranks, launch
from countermark.training.loop import Length, train
from countermark.training.trainer import Trainer
from tests.training.test_every_model_resumes import Noise
from tests.training.toy import SPEC as TOY
from tests.training.toy import Noise as ToyNoise

NUM_STEPS = 10
TOLERANCE = 1e-6
# What some networks look across a batch with: each is asked for the statistics of the whole one.
CURES = ("lecam", "topk", "replay", "minibatch_discrimination", "minibatch_std", "pacgan", "unrolled=1")
NAMES = [spec.name for spec in SPECS]


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def trained(spec: Spec, ranks: Ranks | None = None, **changes: object) -> Trainer:
    """The preset `tiny` after ten batches of eight, through all kinds of augmentation."""
    changes = {"batch": 8, **changes}
    if spec.kind == "image":
        changes = {"augment": "full", "augment_p": 0.5, **changes}
    settings = dataclasses.replace(spec.presets["tiny"], **changes)  # type: ignore[arg-type]
    noise = Noise(settings.size, settings.channels, settings.num_classes)
    trainer = Trainer(spec, settings, noise, seed=0, ranks=ranks)
    for _ in range(NUM_STEPS):
        trainer.advance(None)
    return trainer


@cache
def alone(name: str) -> tuple[dict, dict]:
    torch.set_default_dtype(torch.float64)
    return trained(find(name)).state()


def assert_same(found: tuple[dict, dict], expected: tuple[dict, dict]) -> None:
    for group, tensors in expected[0].items():
        assert tensors.keys() == found[0][group].keys()
        for key, tensor in tensors.items():
            difference = (found[0][group][key].double() - tensor.double()).abs().max()
            assert difference <= TOLERANCE, f"{group} {key} differs by {difference:.1e}"
    assert found[1]["sums"].keys() == expected[1]["sums"].keys()
    for term, (total, count) in expected[1]["sums"].items():
        assert found[1]["sums"][term] == [pytest.approx(total, abs=TOLERANCE), count], term


def train_all(out: Path, ranks: Ranks) -> None:
    """What each of two processes does: every model, cures on one, and two whole runs of a toy; all goes to `out`."""
    torch.set_default_dtype(torch.float64)
    trainings = [(name, {}) for name in NAMES] + [("dcgan", {"cures": (cure,)}) for cure in CURES]
    for number, (name, changes) in enumerate(trainings):
        trainer = trained(find(name), ranks, **changes)  # type: ignore[arg-type]
        for net in trainer.networks.values():
            for key, tensor in net.state_dict().items():
                assert torch.equal(ranks.total(tensor), tensor * ranks.world), f"{name}: {key} differs between ranks"
        if ranks.rank == 0:
            checkpoint.save_state(out, number, *trainer.state())
    train_twice(out, ranks)


def toy(ranks: Ranks, **changes: object) -> Trainer:
    return Trainer(TOY, dataclasses.replace(TOY.presets["tiny"], **changes), ToyNoise(), 0, ranks)  # type: ignore


def train_twice(out: Path, ranks: Ranks) -> None:
    """A run by images and one by the clock, which is the first rank's."""
    marks: list[int] = []
    for name, length in (("images", Length(nimg=100)), ("minutes", Length(seconds=0.3))):
        trainer = toy(ranks)
        last = train(trainer, out / name, length, snapshot=lambda trainer, mark: marks.append(mark) or {})
        assert ranks.agreed(last) == last
    assert bool(marks) == (ranks.rank == 0)


@pytest.fixture(scope="module")
def in_two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ranks")
    launch(partial(train_all, out), devices=2)
    return out


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_are_one(name: str, in_two_processes: Path) -> None:
    assert_same(checkpoint.load_state(in_two_processes / f"state-{NAMES.index(name)}"), alone(name))


@pytest.mark.parametrize("cure", CURES)
def test_so_they_are_with_cures_that_look_across_a_batch(cure: str, in_two_processes: Path) -> None:
    state = checkpoint.load_state(in_two_processes / f"state-{len(NAMES) + CURES.index(cure)}")
    assert_same(state, trained(find("dcgan"), cures=(cure,)).state())


@pytest.mark.parametrize("name", NAMES)
def test_two_parts_are_one(name: str) -> None:
    assert_same(trained(find(name), accumulate=2).state(), alone(name))


@pytest.mark.parametrize("cure", CURES)
def test_so_they_are_with_cures_too(cure: str) -> None:
    parts, whole = (trained(find("dcgan"), cures=(cure,), accumulate=k).state() for k in (4, 1))
    assert_same(parts, whole)


def test_groups_of_pictures_may_cross_parts() -> None:
    """Parts of one picture: StyleGAN2's deviations are of four."""
    spec = find("stylegan2")
    no_lengths = {"path_length": 0.0}  # which are of half a batch
    assert_same(trained(spec, accumulate=8, **no_lengths).state(), trained(spec, **no_lengths).state())
    with pytest.raises(UsageError, match="8 cannot be halved in shares of 1"):
        trained(spec, accumulate=8)


def test_a_failing_part_ends_all_parts() -> None:
    def fail(step):  # type: ignore[no-untyped-def]
        step.networks["G"](step.z())
        if step.x[0, 0, 0, 0] == ToyNoise().at(1, 1).images[0, 0, 0, 0] / 127.5 - 1:
            raise MemoryError("of part 1")
        return {"loss": step.networks["D"](step.networks["G"](step.z())).mean()}

    phases = tuple(dataclasses.replace(phase, function=fail) for phase in TOY.phases(TOY.presets["tiny"]))
    spec = dataclasses.replace(TOY, phases=lambda settings: phases)
    with pytest.raises(MemoryError, match="of part 1"):
        Trainer(spec, dataclasses.replace(TOY.presets["tiny"], accumulate=4), ToyNoise(), 0).advance(None)


@given(num=st.integers(1, 40), batches=st.integers(1, 12), size=st.integers(1, 5), world=st.integers(1, 4))
@settings(deadline=None)
def test_the_ranks_see_the_set_once_an_epoch(num: int, batches: int, size: int, world: int) -> None:
    images = np.arange(num, dtype=np.uint8).reshape(-1, 1, 1, 1)
    streams = [Shuffled(PictureSet("x", images, None, [], [str(i) for i in range(num)]), seed=1) for _ in range(world)]
    batch = size * world
    seen = {
        start + rank + i * world: int(image)
        for start in range(0, batches * batch, batch)
        for rank, stream in enumerate(streams)
        for i, image in enumerate(stream.at(start + rank, size, world).images.ravel())
    }
    assert sorted(seen) == list(range(batches * batch))
    for epoch in range(batches * batch // num):
        assert sorted(seen[p] for p in range(epoch * num, (epoch + 1) * num)) == list(range(num))


@pytest.mark.parametrize(("ranks", "accumulate"), [(Ranks(), 3), (Ranks(1, 2), 3), (Ranks(1, 16), 1)])
def test_a_batch_that_cannot_be_shared_is_refused(ranks: Ranks, accumulate: int) -> None:
    with pytest.raises(UsageError, match=f"8 is no multiple of {ranks.world * accumulate}"):
        Trainer(TOY, dataclasses.replace(TOY.presets["tiny"], accumulate=accumulate), ToyNoise(), 0, ranks)


@pytest.mark.parametrize("devices", [0, -1, 10**6])
def test_numbers_of_processes_that_there_are_not_are_refused(devices: int) -> None:
    with pytest.raises(UsageError, match="not a number of processes"):
        launch(lambda ranks: None, devices)


def test_devices_beside_torchrun_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    with pytest.raises(UsageError, match="leave --devices 2 out"):
        launch(lambda ranks: None, 2)


def test_one_process_knows_nothing_of_lightning() -> None:
    code = (
        "import sys; from countermark.training.distributed import launch; import countermark.jobs.train; "
        "print(launch(lambda ranks: ranks.world), any('lightning' in name for name in sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "1 False\n"


def test_a_run_of_two_processes_goes_on_in_one(in_two_processes: Path, tmp_path: Path) -> None:
    by_clock = train(toy(Ranks()), in_two_processes / "minutes", Length(nimg=10**4))
    assert by_clock.name == "state-10000"
    of_two = checkpoint.load_state(train(toy(Ranks()), in_two_processes / "images", Length(nimg=200)))
    of_one = checkpoint.load_state(train(toy(Ranks()), tmp_path, Length(nimg=200)))
    for key in of_one[0]:
        assert {k: t.shape for k, t in of_two[0][key].items()} == {k: t.shape for k, t in of_one[0][key].items()}
    assert of_two[1].keys() == of_one[1].keys()


def fail(error: Exception, failing: int, ranks: Ranks) -> None:
    if ranks.rank == failing:
        raise error
    ranks.total(torch.zeros(1))


def test_an_error_of_one_rank_is_the_error_of_all() -> None:
    error = OSError(28, "No space left on device", "x.png")
    with pytest.raises(OSError, match=r"No space left on device: 'x.png'"):
        launch(partial(fail, error, 1), devices=2)


COMMAND = ["train", "dcgan:tiny", "--data", "digits", "--images", "30000", "--out"]


def start(words: list[str]) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)


def ranks_of(process: subprocess.Popen) -> list[int]:
    """The process ids of the ranks that a process started, in their order."""
    threads = Path(f"/proc/{process.pid}/task").iterdir()
    children = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    return sorted(pid for pid in children if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes())


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes as Linux has them")
def test_a_killed_rank_ends_the_run_which_goes_on_from_its_last_state(tmp_path: Path) -> None:
    python, torchrun = [sys.executable, "-m"], ["torch.distributed.run", "--nproc-per-node", "2", "-m"]
    runs = {
        "started": [*python, "countermark", *COMMAND, str(tmp_path / "started"), "--devices", "2"],
        "joined": [*python, *torchrun, "countermark", *COMMAND, str(tmp_path / "joined")],
    }
    processes = {name: start(words) for name, words in runs.items()}
    try:
        for (name, process), rank in zip(processes.items(), (1, 0), strict=True):
            while not checkpoint.states(tmp_path / name):
                assert process.poll() is None, process.communicate()
                time.sleep(0.05)
            os.kill(ranks_of(process)[rank], signal.SIGKILL)
            killed = time.monotonic()
            _, said = process.communicate(timeout=60)
            assert time.monotonic() - killed < 10
            assert process.returncode == 1
            assert said.count(f"countermark: {LOST}") == 1
            if name == "started":
                assert said.rstrip().splitlines()[-1] == f"countermark: {LOST}"
                assert "Traceback" not in said
    finally:
        for process in processes.values():
            process.kill()
    for name in runs:
        goal = int(checkpoint.states(tmp_path / name)[-1].name.removeprefix("state-")) + 160
        assert train_model("dcgan:tiny", data="digits", out=tmp_path / name, images=goal).name == f"state-{goal}"
