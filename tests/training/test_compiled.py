"""Compiled networks are the networks: the same weights after the same batches."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from countermark.core.errors import UsageError
from countermark.core.spec import Spec
from countermark.jobs.train import train_model
from countermark.models import SPECS, find
from countermark.training.trainer import Trainer
from tests.training.test_every_model_resumes import Noise
from tests.training.toy import SPEC as TOY
from tests.training.toy import Noise as ToyNoise

# Second derivatives of each kind.
CURES = ("gradient_penalty", "dragan", "r1", "lazy_r2", "r1_fd", "unrolled=1")
# torch 2.13 loses what compiled code writes into a float64 buffer of no dimension, such as StyleGAN3's magnitudes.
IN_SINGLE = ("stylegan3t", "stylegan3r")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    torch.set_default_dtype(torch.float32)
    torch._dynamo.reset()


def trained(spec: Spec, compiler: str, **changes: object) -> Trainer:
    """The preset `tiny` after two batches of eight."""
    settings = dataclasses.replace(spec.presets["tiny"], batch=8, **changes)  # type: ignore[arg-type]
    noise = Noise(settings.size, settings.channels, settings.num_classes)
    trainer = Trainer(spec, settings, noise, seed=0, compiler=compiler)
    for _ in range(2):
        trainer.advance(None)
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
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"], "nothing was compiled"


@pytest.mark.parametrize("cure", CURES)
def test_cures_with_second_derivatives_run_beside_compiled_networks(cure: str) -> None:
    torch.set_default_dtype(torch.float64)
    changes = {"cures": (cure,), "num_classes": 0}
    assert_same(trained(find("sngan"), "", **changes), trained(find("sngan"), "aot_eager", **changes), 1e-9)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_what_a_compiler_makes_of_it_draws_the_same_random_numbers() -> None:
    one, other = (Trainer(TOY, TOY.presets["tiny"], ToyNoise(), seed=0, compiler=name) for name in ("", "inductor"))
    for trainer in (one, other):
        for _ in range(3):
            trainer.advance(None)
    assert_same(one, other, 1e-5)  # D has dropout


def test_a_state_is_the_same_with_and_without_a_compiler() -> None:
    torch.set_default_dtype(torch.float64)
    first, second, through = (trained(find("dcgan"), name) for name in ("aot_eager", "", ""))
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


def test_parts_are_not_compiled() -> None:
    with pytest.raises(UsageError, match=r"^compile: accumulate=2 "):
        trained(find("gan"), "aot_eager", accumulate=2)
