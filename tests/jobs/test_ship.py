"""A run is shipped into a folder of the test; its name then serves wherever a run does."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from countermark.apps.cli import main
from countermark.core import checkpoint
from countermark.core.errors import CountermarkError, UsageError
from countermark.core.pixels import to_uint8
from countermark.data.packaged import PACKAGED
from countermark.jobs import ship as shipping
from countermark.jobs.models import list_models
from countermark.jobs.ship import ship
from countermark.jobs.train import train_model
from countermark.training import shipped
from countermark.training.trained import Trained, load_run

NAME = "dcgan@digits"
SAID = {"machine": "2 cores of a test", "limits": "Sevens & nines are alike.", "num": 50}
ROUNDING = 2.0**-8  # of bfloat16, relative: 8 bits, to the nearest


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "digits"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COUNTERMARK_HOME", str(folder.parent / "home"))
        train_model("dcgan:tiny", data="digits", out=folder, images=2000)
    return folder


@pytest.fixture(scope="module")
def made(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COUNTERMARK_HOME", str(run.parent / "home"))
        return ship(run, **SAID, weights=tmp_path_factory.mktemp("weights"))


@pytest.fixture
def weights(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what was shipped, where the package looks for it."""
    shutil.copytree(made.parent, tmp_path / "weights")
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "weights"


def state(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    return checkpoint.load_state(folder / "state-2000")[0]


def test_averages_ship_in_bfloat16_and_nothing_else(run: Path, made: Path) -> None:
    assert made.name == NAME
    assert sorted(path.name for path in made.iterdir()) == ["card.md", "config.json", "grid.png", "state-2000"]
    assert (made / "config.json").read_bytes() == (run / "config.json").read_bytes()
    (group, tensors), ours = next(iter(state(made).items())), state(run)["averages"]
    assert (group, len(state(made))) == ("averages", 1)
    assert tensors.keys() == ours.keys()
    for key, tensor in tensors.items():
        assert tensor.dtype == (torch.bfloat16 if ours[key].is_floating_point() else ours[key].dtype)
        assert ((tensor.double() - ours[key]).abs() <= ROUNDING * ours[key].abs()).all()


def test_its_samples_are_the_run_s(run: Path, weights: Path) -> None:
    ours, shown = load_run(run), load_run(NAME)
    assert set(shown.networks) == {"G"}
    assert all(parameter.dtype == torch.float32 for parameter in shown.generator.parameters())
    assert (shown.run_id, shown.nimg) == (ours.run_id, ours.nimg)
    apart = (to_uint8(shown.sample(range(64))).astype(int) - to_uint8(ours.sample(range(64)))).__abs__()
    assert 0 < apart.max() <= 2


def test_the_name_serves_wherever_a_run_does(
    run: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sample", NAME, "--out", "samples", "--seeds", "0-2", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 3
    assert main(f"evaluate {NAME} --data digits --metrics kid --num 50 --json".split()) == 0
    assert "50 samples of run" in json.loads(capsys.readouterr().out)["fake"]
    assert main(f"train npr:tiny --data digits --against {NAME} --out detector --images 64".split()) == 0
    assert json.loads((tmp_path / "detector" / "config.json").read_text())["against"] == NAME
    assert main(["models"]) == 0
    assert f"countermark sample {NAME}" in capsys.readouterr().out
    assert {model["name"]: model["trained"] for model in list_models() if model["trained"]} == {"dcgan": [NAME]}


def test_a_training_from_it_says_that_d_starts_fresh(run: Path, weights: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    train_model(
        "dcgan:tiny", data="digits", out="next", images=16, start=NAME, settings=["lr=1e-9"], seed=7, say=lines.append
    )
    assert f"from: {NAME} ships without D, which starts fresh" in lines
    started, given = (checkpoint.load_state(next(f.glob("state-*")))[0] for f in (tmp_path / "next", weights / NAME))
    of_d = [key for key in started["networks"] if key.startswith("D.") and key.endswith("0.weight")]
    for key in (key for key in given["averages"] if key.endswith("weight")):
        assert torch.allclose(started["networks"][key], given["averages"][key].float(), atol=1e-6)
    assert of_d
    assert not any(torch.allclose(started["networks"][key], state(run)["networks"][key], atol=1e-3) for key in of_d)


def test_another_model_and_another_shape_are_one_line(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for model, setting, reason in (
        ("gan:tiny", "lr=0.1", "is a run of dcgan, not of gan"),
        ("dcgan:tiny", "ngf=16", "settings that differ are ngf; take its own where they are of the shape"),
        ("dcgan:tiny", "num_classes=0", "num_classes is 10 there and 0 here; train with pictures of 10 classes"),
    ):
        assert main(f"train {model} --data digits --out next --from {NAME} --images 16 {setting}".split()) == 2
        said = capsys.readouterr().err
        assert reason in said
        assert said.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        "sample dcgan@faces --out s",
        "evaluate dcgan@faces --data digits",
        "train dcgan:tiny --data digits --out next --from dcgan@faces",
        "train npr:tiny --data digits --out next --against dcgan@faces",
        "detect --detector dcgan@faces picture.png",
    ],
)
def test_an_unknown_name_lists_those_that_ship(command: str, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command.split()) == 2
    assert capsys.readouterr().err == (
        f"countermark: dcgan@faces is neither a run folder nor a trained model; these ship: {NAME}\n"
    )


def test_the_card_tells_what_a_user_has_to_know(run: Path, made: Path) -> None:
    card = (made / "card.md").read_text()
    assert card.startswith(f"# {NAME}\n")
    assert card.endswith(".\n")
    num = sum(p.numel() for p in load_run(run).generator.parameters())
    elapsed_s = json.loads((run / "timing.jsonl").read_text().splitlines()[-1])["elapsed_s"]
    for fact in (
        "1,797 handwritten digits, 8 x 8 grey (scikit-learn; BSD)",
        "1,130 of 1,797",
        "10 classes",
        f"G has {num:,} parameters",
        "after 2,000 images",
        f"{elapsed_s / 3600:.3g} hours on 2 cores of a test",
        "Apache-2.0",
        "50 samples of run",
        "158 pictures of the part 'test' of digits",
        "Features: efflite0",
        "- Sevens & nines are alike.\n- Its pictures are too small for a watermark",
    ):
        assert fact in card
    rows = [line.split(" | ") for line in card.splitlines() if line.startswith(("| fd", "| kid"))]
    for _, value, interval in rows:
        low, high = interval.rstrip(" |").split(" to ")
        assert float(low) <= float(value) <= float(high)
    assert len(rows) == 2
    assert "GAN's output" not in card


def test_the_card_says_where_pictures_of_nobody_come_from(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "SYNTHETIC", ("digits",))
    assert "a GAN's output: pictures of nobody" in (ship(run, **SAID, weights=tmp_path) / "card.md").read_text()


def unfit(run: Path, tmp_path: Path, **config: object) -> Path:
    copy = tmp_path / "unfit"
    shutil.copytree(run, copy)
    known = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**known, **config}))
    return copy


REFUSED = {
    "imported": ({"data": None}, "packaged set"),
    "own pictures": ({"data": {"name": "my_photos", "fingerprint": ""}}, "packaged set"),
    "another version of the set": ({"data": {"name": "digits", "fingerprint": "0"}}, "other pictures"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_data_that_no_card_can_name_are_refused(case: str, run: Path, tmp_path: Path) -> None:
    config, reason = REFUSED[case]
    with pytest.raises(UsageError, match=reason):
        ship(unfit(run, tmp_path, **config), **SAID, weights=tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


def test_too_many_bytes_and_unknown_costs_are_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = unfit(run, tmp_path)
    (copy / "timing.jsonl").unlink()
    with pytest.raises(UsageError, match="how long"):
        ship(copy, **SAID, weights=tmp_path / "weights")
    size = sum(t.numel() * (2 if t.is_floating_point() else 8) for t in state(run)["averages"].values())
    monkeypatch.setattr(shipping, "MAX_BYTES", size - 1)
    with pytest.raises(UsageError, match="MB in bf16"):
        ship(run, **SAID, weights=tmp_path / "weights")
    monkeypatch.setattr(shipping, "MAX_BYTES", size)
    with pytest.raises(UsageError, match="how long"):
        ship(copy, **SAID, weights=tmp_path / "weights")


def test_a_detector_is_refused(tmp_path: Path, run: Path) -> None:
    train_model("npr:tiny", data="digits", against=run, out=tmp_path / "detector", images=64)
    with pytest.raises(UsageError, match="npr makes no pictures"):
        ship(tmp_path / "detector", **SAID, weights=tmp_path / "weights")


def test_a_new_version_takes_the_old_one_s_place_whole(run: Path, weights: Path) -> None:
    (weights / NAME / "state-99").mkdir()
    before = sorted(weights.rglob("*"))
    with pytest.raises(UsageError, match="num"):
        ship(run, **{**SAID, "num": 1}, weights=weights)
    assert sorted(weights.rglob("*")) == before
    ship(run, **SAID, weights=weights)
    assert sorted(weights.rglob("*")) == [path for path in before if path.name != "state-99"]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


DAMAGES = {
    "a bit of the weights": lambda folder: flip(folder / "state-2000" / "averages.safetensors"),
    "a bit of the record": lambda folder: flip(folder / "state-2000" / "state.json"),
    "half a config": lambda folder: (folder / "config.json").write_text((folder / "config.json").read_text()[:99]),
    "no weights": lambda folder: (folder / "state-2000" / "averages.safetensors").unlink(),
    "no state": lambda folder: shutil.rmtree(folder / "state-2000"),
    "a state of another group": lambda folder: replace_state(folder, {"optimisers": {"G.a": torch.zeros(2)}}),
    "other networks": lambda folder: replace_state(folder, {"averages": {"G.a": torch.zeros(2)}}),
    "D too": lambda folder: replace_state(folder, {"averages": state(folder)["averages"], "networks": {}}),
}


def replace_state(folder: Path, groups: dict[str, dict[str, torch.Tensor]]) -> None:
    shutil.rmtree(folder / "state-2000")
    checkpoint.save_state(folder, 2000, groups, {})


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_folder_is_one_line(case: str, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    DAMAGES[case](weights / NAME)
    assert main(["sample", NAME, "--out", "samples", "--seeds", "0"]) in (1, 2)
    assert main(f"train dcgan:tiny --data digits --from {NAME} --out next --images 16".split()) in (1, 2)
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith("countermark: ")]) == 2, lines
    assert not any("Traceback" in line for line in lines)


SHIPPED = shipped.shipped()


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_can_be_sampled_and_says_what_it_is(name: str) -> None:
    trained: Trained = load_run(name)
    assert name == f"{trained.spec.name}@{trained.config['data']['name']}"
    assert trained.config["data"]["name"] in PACKAGED
    assert trained.sample([0]).isfinite().all()
    assert sum(path.stat().st_size for path in SHIPPED[name].rglob("*.safetensors")) <= 20 * 2**20
    assert (SHIPPED[name] / "card.md").read_text().startswith(f"# {name}\n")
    with pytest.raises(CountermarkError):
        load_run(f"{name}s")
