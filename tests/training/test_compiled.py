"""Compiled networks are the networks: the same weights after the same batches."""

import dataclasses
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from countermark.core.errors import UsageError
from countermark.core.spec import Adam, Phase, Spec, Step
from countermark.jobs.train import train_model
from countermark.losses.penalties import zero_centred
from countermark.models import SPECS, find
from countermark.training.compiled import compiling
from countermark.training.distributed import Ranks, launch
from countermark.training.trainer import Trainer
from tests.training.test_every_model_resumes import Noise
from tests.training.toy import SPEC as TOY
from tests.training.toy import Noise as ToyNoise

# Second derivatives of each kind, and a penalty that has none.
CURES = ("gradient_penalty", "dragan", "r1", "lazy_r2", "r1_fd", "unrolled=1")
# torch 2.13 loses what compiled code writes into a float64 buffer of no dimension, such as StyleGAN3's magnitudes.
IN_SINGLE = ("stylegan3t", "stylegan3r")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch.set_default_dtype(torch.float32)


def trained(spec: Spec, compiler: str, ranks: Ranks | None = None, **changes: object) -> Trainer:
    """The preset `tiny` after two batches of eight."""
    settings = dataclasses.replace(spec.presets["tiny"], batch=8, **changes)  # type: ignore[arg-type]
    noise = Noise(settings.size, settings.channels, settings.num_classes)
    trainer = Trainer(spec, settings, noise, seed=0, ranks=ranks, compiler=compiler)
    for _ in range(2):
        trainer.advance(None)
    num_compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert bool(num_compiled) == bool(compiler), f"{num_compiled} graphs were compiled"
    return trainer


def assert_same(one: Trainer, other: Trainer, tolerance: float) -> None:
    for name, network in one.networks.items():
        for key, tensor in network.state_dict().items():
            difference = (other.networks[name].state_dict()[key].double() - tensor.double()).abs().max()
            assert difference <= tolerance, f"{name}.{key} differs by {difference:.1e}"


@pytest.mark.parametrize("name", [spec.name for spec in SPECS])
def test_every_model_is_the_same_when_it_is_compiled(name: str) -> None:
    single = name in IN_SINGLE
    torch.set_default_dtype(torch.float32 if single else torch.float64)
    # The backend that traces networks and their derivatives as inductor does, and then runs torch's own operations.
    assert_same(trained(find(name), ""), trained(find(name), "aot_eager"), 1e-4 if single else 1e-9)


@pytest.mark.parametrize("cure", CURES)
def test_cures_with_second_derivatives_run_beside_compiled_networks(cure: str) -> None:
    torch.set_default_dtype(torch.float64)
    changes = {"cures": (cure,), "num_classes": 0}
    assert_same(trained(find("sngan"), "", **changes), trained(find("sngan"), "aot_eager", **changes), 1e-9)


@pytest.mark.parametrize("changes", [{"bf16": True}, {"channels_last": True}], ids=str)
def test_so_it_is_in_bfloat16_and_in_the_other_order_of_memory(changes: dict) -> None:
    assert_same(trained(find("stylegan2"), "", **changes), trained(find("stylegan2"), "aot_eager", **changes), 1e-4)


def test_parts_leave_compilers_as_they_were() -> None:
    trained(find("sngan"), "", cures=("unrolled=1",), num_classes=0, accumulate=2)
    trained(find("sngan"), "aot_eager", num_classes=0)


def test_two_processes_with_compiled_networks_are_one(tmp_path: Path) -> None:
    launch(partial(save_trained, tmp_path), 2)
    torch.set_default_dtype(torch.float64)
    expected = trained(find("dcgan"), "").networks["G"].state_dict()
    for key, tensor in load_file(tmp_path / "G.safetensors").items():
        assert (tensor.double() - expected[key].double()).abs().max() < 1e-9, key


def save_trained(folder: Path, ranks: Ranks) -> None:
    torch.set_default_dtype(torch.float64)
    trainer = trained(find("dcgan"), "aot_eager", ranks)
    if ranks.rank == 0:
        save_file(trainer.networks["G"].state_dict(), folder / "G.safetensors")


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_what_a_compiler_makes_of_it_draws_the_same_random_numbers() -> None:
    one, other = (Trainer(TOY, TOY.presets["tiny"], ToyNoise(), seed=0, compiler=name) for name in ("", "inductor"))
    for trainer in (one, other):
        for _ in range(3):
            trainer.advance(None)
    assert_same(one, other, 1e-5)  # D has dropout


def test_a_state_is_the_same_with_and_without_a_compiler() -> None:
    torch.set_default_dtype(torch.float64)
    second, through, first = (trained(find("dcgan"), name) for name in ("", "", "aot_eager"))
    groups, record = first.state()
    second.restore(groups, {**record, "nimg": first.nimg})
    for trainer in (second, through):
        trainer.advance(None)
    assert_same(second, through, 1e-9)


def test_where_nothing_can_be_compiled_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_nothing(function: object) -> object:
        raise RuntimeError("no compiler was found\nby torch")

    monkeypatch.setattr(torch, "compile", compile_nothing)
    with pytest.raises(UsageError, match=r"^compile: .*no compiler was found\); install a C\+\+ compiler, or leave"):
        train_model("gan:tiny", data="mnist5k", out=tmp_path / "run", images=100, compiled=True)


def test_a_gradient_of_a_compiled_gradient_is_one_line() -> None:
    def penalised(step: Step) -> dict[str, torch.Tensor]:
        x = step.x.requires_grad_()
        return {"loss": zero_centred(step.judge(x), x).mean()}

    spec = dataclasses.replace(find("gan"), phases=lambda settings: (Phase("D", Adam(1e-3), penalised),))
    with pytest.raises(UsageError, match=r"^compile: .* within second_derivatives\(\)"), compiling():
        trained(spec, "aot_eager")


def test_a_network_that_cannot_be_compiled_is_one_line() -> None:
    def backend(graph: object, inputs: object) -> object:
        raise OSError(28, "No space left on device")

    with pytest.raises(UsageError, match=r"^compile: .*No space left.*; leave --compile out"), compiling():
        trained(find("gan"), backend)  # type: ignore[arg-type]


def test_parts_are_not_compiled() -> None:
    with pytest.raises(UsageError, match=r"^compile: accumulate=2 "):
        trained(find("gan"), "aot_eager", accumulate=2)
