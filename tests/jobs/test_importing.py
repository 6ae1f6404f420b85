"""Official checkpoints become runs whose outputs are the official ones; hostile files become one line."""

import dataclasses
import json
import random
import re
import time
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import countermark as cm
from countermark.apps.cli import main
from countermark.core import checkpoint
from countermark.core.errors import CountermarkError, UsageError
from countermark.jobs.importing import import_run
from countermark.models import find
from countermark.training.trained import Trained, load_run
from tests import malice
from tests.official import adam_state, golden, official_modules, pkl, pth, tree

TOLERANCE = 1e-3  # of the official output's standard deviation, as in tests/parity


def near(ours: Tensor, official: Tensor) -> bool:
    return bool((ours - official).abs().max() <= TOLERANCE * official.std())


@pytest.fixture
def dcgan(tmp_path: Path) -> tuple[Path, Path]:
    states, _, _ = golden("dcgan")
    files = tmp_path / "netG_epoch_24.pth", tmp_path / "netD_epoch_24.pth"
    for file, name in zip(files, "GD", strict=True):
        file.write_bytes(pth(states[name]))
    return files


def r3gan_pickle(
    trap: Path, kind: str = "Network", networks: str = "G D G_ema", adam: bool = True, **facts: object
) -> bytes:
    """A snapshot of R3GAN, with Adam's states; G_ema is G with all weights halved."""
    states, _, config = golden("r3gan")
    states["G_ema"] = {key: t if key.endswith("Kernel") else t / 2 for key, t in states["G"].items()}
    with official_modules(trap) as modules:
        made = getattr(modules["training.networks"], kind)
        arguments = {name: config[name[0]] if kind == "Persistent" else {} for name in states}
        chosen = {name: tree(made(**arguments[name]), states[name]) for name in networks.split()}
        states_of_adam = {f"{name}_opt_state": adam_state(chosen[name]) for name in chosen if adam and name in "GD"}
        return pkl(chosen, **states_of_adam, **facts)


@pytest.mark.parametrize("zipped", [True, False], ids=["since 1.6", "before 1.6"])
def test_dcgan_s_files_give_its_outputs(zipped: bool, tmp_path: Path) -> None:
    states, official, config = golden("dcgan")
    for name in "GD":
        (tmp_path / f"net{name}.pth").write_bytes(pth(states[name], zipped=zipped))
    state = import_run([tmp_path / "netG.pth", tmp_path / "netD.pth"], model="dcgan", out=tmp_path / "run")
    assert state == tmp_path / "run" / "state-0"
    trained = load_run(tmp_path / "run")
    size = trained.settings.size
    assert (size, trained.settings.ngf, trained.settings.num_z) == (64, config["ngf"], config["nz"])  # type: ignore[attr-defined]
    images = trained.networks["G"](official["z"].flatten(1))
    assert near(images, official["img_eval"])
    assert near(torch.sigmoid(trained.networks["D"](images)).view(-1, 1, 1, 1), official["p_real_eval"])
    assert trained.sample([1, 2]).shape == (2, 3, 64, 64)


@pytest.mark.parametrize("model", ["biggan", "biggan_deep"])
@pytest.mark.parametrize("zipped", [True, False], ids=["since 1.6", "before 1.6"])
def test_biggan_s_files_give_its_outputs(model: str, zipped: bool, tmp_path: Path) -> None:
    """G_ema is G with the statistics of batch normalisation shifted, so that it can be told from G."""
    states, official, config = golden(model)
    states["G_ema"] = {key: t + 1 if key.endswith("stored_mean") else t for key, t in states["G"].items()}
    files = [tmp_path / f"{name}_best0.pth" for name in states]
    for file, state in zip(files, states.values(), strict=True):
        file.write_bytes(pth(state, zipped=zipped))
    groups, _ = checkpoint.load_state(import_run(files, model=model, out=tmp_path / "run"))
    live, average = (groups[group]["G.output_layer.0.running_mean"] for group in ("networks", "averages"))
    assert torch.equal(average, live + 1)
    import_run([files[0], files[1]], model=model, out=tmp_path / "without")
    trained = load_run(tmp_path / "without")
    c = torch.nn.functional.one_hot(official["y"], config["n_classes"]).float()
    assert near(trained.networks["G"](official["z"], c), official["img_eval"])
    assert near(trained.networks["D"](official["img_eval"], c)[:, None], official["logits_eval"])
    assert trained.settings.num_classes == config["n_classes"]
    assert trained.sample([1, 2], truncation=0.5).shape == official["img_eval"][:2].shape
    import_run([files[0]], model=model, out=tmp_path / "alone")
    alone = load_run(tmp_path / "alone")
    assert near(alone.networks["G"](official["z"], c), official["img_eval"])
    assert alone.networks["D"](official["img_eval"], c).isfinite().all()


def test_a_biggan_without_attention_chunks_and_shared_embedding(tmp_path: Path) -> None:
    """The official CIFAR-10 recipe's, whose keys are made of ours here."""
    ours = find("biggan")
    settings = dataclasses.replace(ours.presets["cifar10"], widths_g=(8, 8, 8, 8), widths_d=(8, 8, 8, 8), num_z=6)  # type: ignore[call-arg]
    torch.manual_seed(0)
    networks = {name: network.eval() for name, network in ours.build(settings).items()}
    endings = {"spectral.u": "u0", "spectral.sv": "sv0", "norm.running_mean": "stored_mean"}
    endings |= {"norm.running_var": "stored_var", "layer.0.weight": "layer.0.gain"}
    endings |= {"layer.0.running_mean": "layer.0.stored_mean", "layer.0.running_var": "layer.0.stored_var"}
    for name, network in networks.items():
        state = {key: t for key, t in network.state_dict().items() if not key.endswith("tracked")}
        for ending, theirs in endings.items():
            state = {re.sub(rf"{re.escape(ending)}$", theirs, key): t for key, t in state.items()}
        assert not any("spectral" in key or "running" in key for key in state)
        (tmp_path / f"{name}.pth").write_bytes(pth(state))
    import_run([tmp_path / "G.pth", tmp_path / "D.pth"], model="biggan", out=tmp_path / "run")
    trained = load_run(tmp_path / "run")
    fixed = ("num_z", "num_embed", "hierarchical", "widths_g", "widths_d", "attention_g", "attention_d", "num_classes")
    assert {key: getattr(trained.settings, key) for key in fixed} == {key: getattr(settings, key) for key in fixed}
    z, c = torch.randn(2, 6), torch.eye(10)[:2]
    x = networks["G"](z, c)
    assert torch.equal(trained.networks["G"](z, c), x)
    assert torch.equal(trained.networks["D"](x, c), networks["D"](x, c))


@pytest.mark.parametrize("kind", ["Network", "Persistent"])
def test_r3gan_s_snapshots_give_its_outputs(kind: str, tmp_path: Path) -> None:
    _, official, config = golden("r3gan")
    file = tmp_path / "network-snapshot.pkl"
    file.write_bytes(r3gan_pickle(tmp_path / "trap", kind, "G D", cur_nimg=50_048))
    assert import_run([file], model="r3gan", out=tmp_path / "run").name == "state-50048"
    trained = load_run(tmp_path / "run")
    assert near(trained.networks["G"](official["z"], official["c"]), official["img"])
    assert near(trained.networks["D"](official["img"], official["c"]), official["logits"])
    assert trained.settings.num_classes == config["G"]["c_dim"]
    assert trained.nimg == 50_048
    assert not (tmp_path / "trap").exists()


def halved(trained: Trained) -> bool:
    states, _, _ = golden("r3gan")
    return torch.equal(trained.networks["G"].to_image.weight, states["G"]["Model.AggregationLayer.Layer.weight"] / 2)  # type: ignore[union-attr]


def test_the_average_is_sampled_and_the_live_network_is_trained_on(tmp_path: Path) -> None:
    (tmp_path / "all.pkl").write_bytes(r3gan_pickle(tmp_path / "trap"))
    state = import_run([tmp_path / "all.pkl"], model="r3gan", out=tmp_path / "run")
    assert halved(load_run(tmp_path / "run"))
    groups, _ = checkpoint.load_state(state)
    live, average = groups["networks"]["G.to_image.weight"], groups["averages"]["G.to_image.weight"]
    assert torch.equal(live, 2 * average)


def test_an_average_alone_fills_both_and_d_starts_fresh(tmp_path: Path) -> None:
    (tmp_path / "average.pkl").write_bytes(r3gan_pickle(tmp_path / "trap", networks="G_ema"))
    lines: list[str] = []
    state = import_run([tmp_path / "average.pkl"], model="r3gan", out=tmp_path / "run", say=lines.append)
    assert halved(load_run(tmp_path / "run"))
    groups, _ = checkpoint.load_state(state)
    assert torch.equal(groups["networks"]["G.to_image.weight"], groups["averages"]["G.to_image.weight"])
    assert any("D" in line and "starts fresh" in line for line in lines)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["fresh"] == "D"


def test_old_files_without_counts_of_batches(tmp_path: Path) -> None:
    states, official, _ = golden("dcgan")
    (tmp_path / "G.pth").write_bytes(pth({k: t for k, t in states["G"].items() if not k.endswith("tracked")}))
    import_run([tmp_path / "G.pth"], model="dcgan", out=tmp_path / "run")
    assert near(load_run(tmp_path / "run").networks["G"](official["z"].flatten(1)), official["img_eval"])


def test_half_precision_becomes_single(tmp_path: Path) -> None:
    states, _, _ = golden("dcgan")
    (tmp_path / "G.pth").write_bytes(pth({k: t.half() if t.is_floating_point() else t for k, t in states["G"].items()}))
    import_run([tmp_path / "G.pth"], model="dcgan", out=tmp_path / "run")
    weight = load_run(tmp_path / "run").networks["G"].main[0].weight  # type: ignore[union-attr, index]
    assert torch.equal(weight, states["G"]["main.0.weight"].half().float())


def test_the_run_says_where_it_came_from_and_repeats(dcgan: tuple[Path, Path], tmp_path: Path) -> None:
    from countermark.core.files import sha256_hex

    cm.import_run(dcgan, model="dcgan", out=tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["source"] == [{"name": file.name, "sha256": sha256_hex(file.read_bytes())} for file in dcgan]
    assert (config["model"], config["preset"], config["data"], config["fresh"]) == ("dcgan", "dcgan64", None, "")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    import_run(dcgan, model="dcgan", out=tmp_path / "run")
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    import_run(dcgan, model="dcgan", out=tmp_path / "other")
    assert (tmp_path / "other" / "state-0" / "state.json").read_bytes() == before[tmp_path / "run/state-0/state.json"]


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("netG_epoch_24", "G"),
        ("netD_epoch_24", "D"),
        ("G", "G"),
        ("D_best0", "D"),
        ("G_ema", "G_ema"),
        ("G_ema_best1", "G_ema"),
        ("BigGAN_I128_hdf5_seed0_Gch96_Dch96_Gattn64_Dattn64_Gshared_hier_ema_G", "G"),
        ("BigGAN_I128_hdf5_seed0_Gch96_Dch96_Gattn64_Dattn64_Gshared_hier_ema_D", "D"),
        ("BigGAN_I128_hdf5_seed0_Gch96_Dch96_Gattn64_Dattn64_Gshared_hier_ema_G_ema", "G_ema"),
        ("celeba-generator", "G"),
        ("discriminator.final", "D"),
        ("weights", None),
        ("landscape_gd", None),
    ],
)
def test_a_file_s_name_says_which_network_it_holds(name: str, role: str | None) -> None:
    from countermark.jobs.importing import _role

    if role is None:
        with pytest.raises(UsageError, match="which network"):
            _role(Path(f"{name}.pth"), alone=False)
    assert _role(Path(f"{name}.pth"), alone=True) == (role or "G")


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    try:
        status = main([str(word) for word in words])
    except SystemExit as leaving:
        status = int(leaving.code or 0)
    return status, *capsys.readouterr()


def test_the_command_line_imports_samples_evaluates_and_trains_on(
    dcgan: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    status, out, err = call(capsys, "import", dcgan[0], "--model", "dcgan", "--out", run)
    assert (status, out.strip()) == (0, str(run / "state-0"))
    assert "licence" in err
    assert "D is not in these files" in err
    status, out, _ = call(capsys, "sample", run, "--out", tmp_path / "samples", "--seeds", "0-11", "--json")
    assert status == 0
    assert len(json.loads(out)) == 12
    pictures = tmp_path / "samples"
    words = ("evaluate", run, "--data", pictures, "--num", 12, "--metrics", "fd", "--part", "all", "--json")
    assert json.loads(call(capsys, *words)[1])["num_fake"] == 12
    words = ("train", "dcgan", "--data", pictures, "--size", 64, "--from", run, "--out", tmp_path / "next")
    status, _, err = call(capsys, *words, "--images", 4, "batch=2", "num_z=16", "ngf=8", "ndf=8", "lr=1e-9")
    assert status == 0, err
    assert "imported without D" in err
    one, other = (load_run(folder).networks["G"].main[0].weight for folder in (run, tmp_path / "next"))  # type: ignore[union-attr, index]
    assert torch.allclose(one, other, atol=1e-6)


def test_bad_use_is_one_line_and_leaves_no_run(
    dcgan: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    G, D = dcgan
    nameless = tmp_path / "weights.pth"
    nameless.write_bytes(G.read_bytes())
    strangers = tmp_path / "strangers"
    strangers.mkdir()
    (strangers / "letter.txt").write_text("x")
    (tmp_path / "r3gan.pkl").write_bytes(r3gan_pickle(tmp_path / "trap"))
    out = tmp_path / "run"
    for words, status, reason in (
        ((G, "--model", "gan"), 2, "no official checkpoints to import; choose biggan, biggan_deep, dcgan, "),
        ((G, "--model", "npr"), 2, "no official checkpoints"),
        ((G, "--model", "biggest"), 2, "unknown model"),
        ((G, "--model", "dcgan:dcgan64"), 2, "unknown model"),
        ((D, "--model", "dcgan"), 2, "there is no G"),
        ((G, G, "--model", "dcgan"), 2, "holds G, which another file holds too"),
        ((nameless, D, "--model", "dcgan"), 2, "which network it holds"),
        ((tmp_path / "gone.pth", "--model", "dcgan"), 1, "no such file"),
        ((tmp_path, "--model", "dcgan"), 1, "not a regular file"),
        ((G, "--model", "r3gan"), 1, "no official networks of r3gan"),
        ((tmp_path / "r3gan.pkl", "--model", "dcgan"), 1, "no official networks of dcgan"),
        ((G,), 2, "--model"),
        (("--model", "dcgan"), 2, "FILE"),
    ):
        found = call(capsys, "import", *words, "--out", out)
        assert found[0] == status, found
        assert found[1] == ""
        assert reason in found[2]
        assert found[2].count("\n") == 1
        assert not out.exists()
    swapped = tmp_path / "netD_swapped.pth"
    swapped.write_bytes(G.read_bytes())
    status, _, err = call(capsys, "import", G, swapped, "--model", "dcgan", "--out", out)
    assert (status, err.count("\n")) == (1, 1)
    assert not out.exists()
    assert call(capsys, "import", G, "--model", "dcgan", "--out", strangers)[0] == 2
    assert not list(strangers.glob("state*"))
    assert call(capsys, "import", G, D, "--model", "dcgan", "--out", out)[0] == 0
    assert call(capsys, "import", G, "--model", "dcgan", "--out", out)[0] == 2  # a run of other files


def lying(**changes: Tensor | None) -> bytes:
    states, _, _ = golden("dcgan")
    return pth({key: t for key, t in {**states["G"], **changes}.items() if t is not None})


@pytest.mark.parametrize(
    "changes",
    [
        {"main.0.weight": None},
        {"main.1.running_var": None},
        {"main.6.weight": torch.zeros(4, 4, 4, 4)},
        {"main.12.weight": torch.zeros(8, 3, 4)},
        {"main.12.weight": torch.zeros(0, 3, 4, 4)},
        {"main.13.weight": torch.zeros(3)},
        {"main.x.weight": torch.zeros(3, 3, 3, 3)},
        {f"main.{'9' * 5000}.weight": torch.zeros(1, 1, 1, 1)},
        {f"main.{i}.weight": torch.zeros(1, 1, 1, 1) for i in range(20, 3000)},
        {"\x1b[31m\n": torch.zeros(3)},
    ],
    ids=lambda changes: repr(next(iter(changes)))[:20],
)
def test_networks_that_are_not_what_they_say(changes: dict, tmp_path: Path) -> None:
    (tmp_path / "G.pth").write_bytes(lying(**changes))
    with pytest.raises(CountermarkError) as caught:
        import_run([tmp_path / "G.pth"], model="dcgan", out=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()
    assert f"{tmp_path / 'G.pth'}: " in str(caught.value)
    assert str(caught.value).endswith("; give the model that the files are of")
    assert not (tmp_path / "run").exists()


def test_a_network_in_no_file_is_not_built_out_of_proportion(
    dcgan: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = find("dcgan")
    assert spec.from_official is not None
    lying = dataclasses.replace(
        spec, from_official=lambda *them: ({**spec.from_official(*them)[0], "ndf": 2**14}, {"G": them[1]["G"]})
    )
    monkeypatch.setattr("countermark.jobs.importing.find", lambda name: lying)
    with pytest.raises(CountermarkError, match="far larger than G"):
        import_run(dcgan, model="dcgan", out=tmp_path / "run")


def test_a_folder_of_other_things_stays_as_it_is(dcgan: list[Path], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(UsageError, match=r"holds files that are not a run"):
        import_run(dcgan, model="dcgan", out=tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_images_shown_that_no_training_reaches_are_none(tmp_path: Path) -> None:
    for i, nimg in enumerate((-1, 10**30, 2.5, "many", True)):
        (tmp_path / f"{i}.pkl").write_bytes(r3gan_pickle(tmp_path / "trap", networks="G", cur_nimg=nimg))
        assert import_run([tmp_path / f"{i}.pkl"], model="r3gan", out=tmp_path / f"run{i}").name == "state-0"


def test_hostile_files_end_in_one_line_and_run_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trap, file = tmp_path / "trap", tmp_path / "G.pth"
    for made in (malice.code, malice.damage):
        for name, data in made(trap):
            file.write_bytes(data)
            status, out, err = call(capsys, "import", file, "--model", "r3gan", "--out", tmp_path / "run")
            assert status in (1, 2), name
            assert (out, err.count("\n")) == ("", 1), name
            assert err.startswith("countermark: "), name
            assert not trap.exists(), name
            assert not (tmp_path / "run").exists(), name


@pytest.mark.parametrize("model", ["dcgan", "r3gan"])
def test_bombs_become_no_run(model: str, tmp_path: Path) -> None:
    for name, data in malice.bombs():
        if len(data) > 2**20 or name.startswith(("many", "deep")):
            continue  # test_pickles.py reads these
        (tmp_path / "G.pkl").write_bytes(data)
        started = time.monotonic()
        with pytest.raises(CountermarkError):
            import_run([tmp_path / "G.pkl"], model=model, out=tmp_path / "run")
        assert time.monotonic() - started < 10, name
        assert not (tmp_path / "run").exists(), name


@pytest.fixture(scope="module")
def good_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, bytes, list[int]]]:
    """Files by kind: the model, the bytes, and the places in them that are no weights."""
    (dcgan, _, _), (r3gan, _, _) = golden("dcgan"), golden("r3gan")
    trap = tmp_path_factory.mktemp("traps") / "trap"
    files = {
        "zip": ("dcgan", pth(dcgan["G"]), dcgan),
        "legacy": ("dcgan", pth(dcgan["G"], zipped=False), dcgan),
        "pickle": ("r3gan", r3gan_pickle(trap, networks="G", adam=False), r3gan),
        "persistent": ("r3gan", r3gan_pickle(trap, "Persistent", "G", adam=False), r3gan),
    }
    return {kind: (model, data, _structure(data, states["G"])) for kind, (model, data, states) in files.items()}


def _structure(data: bytes, state: dict[str, Tensor]) -> list[int]:
    places = set(range(len(data)))
    for tensor in state.values():
        start = data.find(tensor.numpy().tobytes())
        places -= set(range(start, start + tensor.nbytes))
    return sorted(places)


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle", "persistent"])
def test_mutations_are_a_run_or_one_line(
    kind: str,
    data: st.DataObject,
    good_files: dict[str, tuple[str, bytes, list[int]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Bytes changed where the structure is, parts cut out, put in, repeated, or cut off."""
    model, good, structure = good_files[kind]
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    mutated = bytearray(good)
    for _ in range(rng.choice((0, 1, 1, 2, 5, 50))):
        mutated[rng.choice(structure)] = rng.randrange(256)
    if rng.random() < 0.3:
        start = rng.choice(structure)
        mutated[start : start + rng.choice((1, 2, 8, 1000))] = rng.choice((b"", b"R", b"\xff" * 8, mutated[:500]))
    if rng.random() < 0.2:
        del mutated[rng.choice(structure) :]
    folder = tmp_path_factory.mktemp("mutated")
    (folder / "G.pth").write_bytes(mutated)
    started = time.monotonic()
    line = malice.refusal(lambda: import_run([folder / "G.pth"], model=model, out=folder / "run"))
    assert line.isprintable()
    assert (folder / "run").exists() != bool(line)
    assert line or load_run(folder / "run").sample([1]).shape[0] == 1
    assert time.monotonic() - started < 10
