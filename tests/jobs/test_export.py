"""Every generator as an ONNX file: what onnxruntime makes of it is what torch makes."""

import dataclasses
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.seeds import latents
from countermark.core.spec import Spec
from countermark.jobs import export
from countermark.jobs.train import train_model
from countermark.training.trained import Trained, load_run
from tests.training import style
from tests.training.generators import GENERATORS, untrained


def run_onnx(data: bytes, trained: Trained, num: int) -> tuple[Tensor, Tensor]:
    """What onnxruntime and torch make of `num` codes of seeds that the export has not seen."""
    seeds = range(100, 100 + num)
    z, c = latents(seeds, trained.spec.num_z(trained.settings)), trained.conditions(seeds, None)
    given = {"z": z.numpy()} if c is None else {"z": z.numpy(), "c": c.numpy()}
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    assert [put.name for put in session.get_inputs()] == list(given)
    with torch.no_grad():
        return torch.from_numpy(session.run(["pictures"], given)[0]), trained.generator(z, c)


@pytest.mark.parametrize("spec", [*GENERATORS, style.SPEC], ids=lambda spec: spec.name)
def test_every_generator_runs_alike_at_any_batch_size(spec: Spec) -> None:
    trained = untrained(spec)
    data = export.as_onnx(trained)
    for num in (1, 5):
        found, expected = run_onnx(data, trained, num)
        assert found.shape == expected.shape
        assert expected.std() > 0.01
        assert (found - expected).abs().max() <= 1e-3


def test_classes_are_an_input() -> None:
    trained = untrained(style.SPEC, num_classes=3)
    found, expected = run_onnx(export.as_onnx(trained), trained, 5)
    assert (found - expected).abs().max() <= 1e-3


def test_a_run_becomes_one_file_that_says_what_it_is(tmp_path: Path) -> None:
    state = train_model("dcgan:tiny", data="digits", out=tmp_path / "run", images=32)
    said = export.export_run(state.parent, out=tmp_path / "new" / "g.onnx")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["g.onnx"]
    trained = load_run(state.parent)
    data = (tmp_path / "new" / "g.onnx").read_bytes()
    proto = onnx.load_model_from_string(data)
    onnx.checker.check_model(proto)
    about = {entry.key: entry.value for entry in proto.metadata_props}
    assert (about["model"], about["run"]) == ("dcgan", trained.run_id)
    assert about["marks"] == "pictures made with this file carry no marks"
    assert "trained the weights" in about["licence"]
    assert [put.type.tensor_type.shape.dim[0].dim_param for put in proto.graph.input] == ["batch"] * 2
    found, expected = run_onnx(data, trained, 3)
    assert (found - expected).abs().max() <= 1e-3
    assert said["bytes"] == len(data)
    assert said["max_difference"] <= 1e-3


def own(change: nn.Module) -> Trained:
    """A generator of one's own that does `change` to a linear layer's output."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.change = nn.Linear(style.NUM_Z, 16), change

        def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
            return self.change(self.linear(z)).view(-1, 1, 4, 4)

    spec = dataclasses.replace(style.SPEC, build=lambda settings: {"G": Own()})
    return untrained(spec)


class Bessel(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class BatchOfTwo(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, -1).reshape(x.shape)


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


FORBIDDEN = {
    "an operator without ONNX": (Bessel, "bessel_j0"),
    "randomness of its own": (Noise, "differ"),
    "one batch size": (BatchOfTwo, "batch"),
    "a branch on values": (Branch, "torch cannot export it"),
}


@pytest.mark.parametrize("case", FORBIDDEN)
def test_what_cannot_be_exported_is_one_line_and_no_file(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change, reason = FORBIDDEN[case]
    monkeypatch.setattr(export, "load_run", lambda run, model: own(change()))
    (tmp_path / "old.onnx").write_bytes(b"before")
    for name in ("new.onnx", "old.onnx"):
        with pytest.raises(CountermarkError, match=reason) as caught:
            export.export_run("run", out=tmp_path / name)
        assert "\n" not in str(caught.value)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("old.onnx", b"before")]
    assert capsys.readouterr() == ("", "")


def test_missing_packages_name_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = export.importlib.util.find_spec
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else known(name))
    with pytest.raises(UsageError, match=r'onnxscript: pip install "countermark\[export\]"'):
        export.export_run("run", out=tmp_path / "g.onnx")


def test_what_is_too_large_for_one_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "MAX_BYTES", 1000)
    with pytest.raises(CountermarkError, match="2 GB"):
        export.as_onnx(untrained(style.SPEC))
