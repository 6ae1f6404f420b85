import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from countermark.core.errors import CountermarkError, UsageError
from countermark.jobs.train import train_model
from countermark.models import SPECS, find
from countermark.training.trained import Trained, load_run

GENERATORS = [spec for spec in SPECS if spec.kind == "image"]


@pytest.mark.parametrize("spec", GENERATORS, ids=lambda spec: spec.name)
def test_a_seed_gives_one_picture_in_any_batch(spec: object) -> None:
    settings = dataclasses.replace(spec.presets["tiny"], num_classes=10)  # type: ignore[attr-defined]
    networks = {name: network.eval() for name, network in spec.build(settings).items()}  # type: ignore[attr-defined]
    trained = Trained(spec, settings, {}, networks, 0)  # type: ignore[arg-type]
    together, alone = trained.sample([3, 9, 200]), trained.sample([9])
    assert (together[1] - alone[0]).abs().max() <= 2 / 255
    assert not torch.equal(together[0], together[1])
    assert torch.equal(trained.conditions([3, 9], [4]), trained.conditions([5, 6], [4, 4]))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "r"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COUNTERMARK_HOME", str(folder.parent / "home"))
        train_model("dcgan:tiny", data="digits", out=folder, images=64)
    return folder


def changed(run: Path, tmp_path: Path, **config: object) -> Path:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    known = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**known, **config}))
    return copy


def test_a_run_loads_its_average(run: Path) -> None:
    trained = load_run(run)
    assert (trained.spec, trained.nimg) == (find("dcgan"), 64)
    assert not any(parameter.requires_grad for parameter in trained.networks["G"].parameters())


@pytest.mark.parametrize(
    "config",
    [{"model": None}, {"settings": 3}, {"format": "x"}, {"settings": {"size": "a"}}, {"settings": {"sizes": 8}}],
    ids=str,
)
def test_a_damaged_config_is_one_line(run: Path, tmp_path: Path, config: dict) -> None:
    with pytest.raises(CountermarkError) as caught:
        load_run(changed(run, tmp_path, **config))
    assert "\n" not in str(caught.value)


def test_a_stranger_s_run_neither_runs_code_nor_claims_memory(run: Path, tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(UsageError, match="--model"):
        load_run(changed(run, tmp_path, model=f"{tmp_path}/evil.py:SPEC"))
    settings = json.loads((run / "config.json").read_text())["settings"]
    shutil.rmtree(tmp_path / "copy")
    for ngf, reason in ((10**5, "other networks"), (10**8, "ngf is not a value")):
        with pytest.raises(CountermarkError, match=reason):
            load_run(changed(run, tmp_path, settings={**settings, "ngf": ngf}))
        shutil.rmtree(tmp_path / "copy")
