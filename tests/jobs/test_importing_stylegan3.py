"""NVIDIA's checkpoints of StyleGAN3 become runs whose pictures are the official ones."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from countermark.core.errors import CountermarkError
from countermark.jobs.importing import import_run
from countermark.nn.resampling import KERNEL
from countermark.nn.stylegan2 import Discriminator
from countermark.training.run import read_config
from countermark.training.trained import load_run
from tests.official import golden, official_modules, pkl, tree

MODELS = ["stylegan3t", "stylegan3r"]
TOLERANCE = 1e-3  # of the official output's standard deviation, as in tests/parity
FILTERED = ("b32", "b32.fromrgb", "b16.skip", "b8.conv1", "b4.conv")  # some modules of D that hold its filter
D_ARGUMENTS = {
    "c_dim": 0,
    "img_resolution": 32,
    "img_channels": 3,
    "channel_base": 256,
    "channel_max": 24,
    "block_kwargs": {"freeze_layers": 0},
    "mapping_kwargs": {},
    "epilogue_kwargs": {"mbstd_group_size": 2},
}


def discriminator() -> Discriminator:
    torch.manual_seed(0)
    return Discriminator(size=32, channel_base=256, channel_max=24, group=2).eval()


def snapshot(
    model: str, trap: Path, networks: str = "G D G_ema", *, changes: dict | None = None, **arguments: object
) -> bytes:
    """What the official training writes; G_ema is the fixture's G, and G it with all weights halved.

    changes: tensors of all G to replace, arguments: of their constructor.
    """
    states, _, config = golden(model)
    average = {**states["G"], **(changes or {})}
    halved = {key: t / 2 if key.endswith("weight") else t for key, t in average.items()}
    filters = {f"{name}.resample_filter": KERNEL for name in FILTERED}
    tensors = {"G": halved, "G_ema": average, "D": {**discriminator().state_dict(), **filters}}
    given = {key: {**config["G"], **arguments} for key in ("G", "G_ema")} | {"D": D_ARGUMENTS}
    with official_modules(trap) as modules:
        made = {
            name: tree(modules["training.networks"].Persistent(**given[name]), tensors[name])
            for name in networks.split()
        }
        for name in {"G", "G_ema"} & set(made):
            last = list(made[name].synthesis.children())[-1]  # type: ignore[union-attr]
            last.register_buffer("up_filter", None)  # as the official layer for colours has it
        return pkl(made, cur_nimg=25_000)


def near(ours: Tensor, official: Tensor) -> bool:
    return bool((ours - official).abs().max() <= TOLERANCE * official.std())


@pytest.mark.parametrize("model", MODELS)
def test_snapshots_give_the_official_pictures(model: str, tmp_path: Path) -> None:
    _, official, config = golden(model)
    (tmp_path / "network-snapshot.pkl").write_bytes(snapshot(model, tmp_path / "trap"))
    state = import_run([tmp_path / "network-snapshot.pkl"], model=model, out=tmp_path / "run")
    assert state.name == "state-25000"
    trained = load_run(tmp_path / "run")
    G = trained.generator
    assert near(G.mapping(official["z"], None, config["truncation_psi"]), official["ws_psi0p7"])  # type: ignore[operator]
    assert near(trained.render(official["ws_psi0p7"], None), official["img"])
    G.synthesis.input.transform.copy_(official["transform"])  # type: ignore[union-attr, operator]
    assert near(trained.render(official["ws_psi0p7"], None), official["img_transformed"])
    assert torch.equal(trained.networks["D"](official["img"]), discriminator()(official["img"]))
    assert trained.settings.size == 32
    assert (trained.settings.num_layers, trained.settings.margin) == (6, 4)  # type: ignore[attr-defined]
    assert (trained.settings.channel_max_d, trained.settings.group) == (24, 2)  # type: ignore[attr-defined]
    assert not (tmp_path / "trap").exists()


def test_the_average_is_sampled_and_g_is_trained_on(tmp_path: Path) -> None:
    from countermark.core.checkpoint import load_state

    (tmp_path / "all.pkl").write_bytes(snapshot("stylegan3t", tmp_path / "trap"))
    groups, _ = load_state(import_run([tmp_path / "all.pkl"], model="stylegan3t", out=tmp_path / "run"))
    key = "G.synthesis.L0_24_32.weight"
    assert torch.equal(groups["averages"][key], 2 * groups["networks"][key])


@pytest.mark.parametrize("model", MODELS)
def test_d_starts_fresh_beside_an_average_alone(model: str, tmp_path: Path) -> None:
    (tmp_path / "G_ema.pkl").write_bytes(snapshot(model, tmp_path / "trap", "G_ema"))
    import_run([tmp_path / "G_ema.pkl"], model=model, out=tmp_path / "run")
    assert read_config(tmp_path / "run")["fresh"] == "D"
    trained = load_run(tmp_path / "run")
    assert (trained.settings.channel_base_d, trained.settings.channel_max_d) == (512, 32)  # type: ignore[attr-defined]
    assert trained.sample([1, 2]).shape == (2, 3, 32, 32)


def test_the_settings_are_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "G.pkl").write_bytes(snapshot("stylegan3t", tmp_path / "trap", "G", magnitude_ema_beta=0.99))
    import_run([tmp_path / "G.pkl"], model="stylegan3t", out=tmp_path / "run")
    found = json.loads((tmp_path / "run" / "config.json").read_text())["settings"]
    assert found["first_stopband"] == pytest.approx(2**2.1)
    assert (found["num_critical"], found["first_cutoff"], found["kernel"], found["radial"]) == (2, 2, 3, False)
    assert dataclasses.asdict(load_run(tmp_path / "run").settings)["num_z"] == 64


@pytest.mark.parametrize(
    ("arguments", "changes", "reason"),
    [
        ({}, {"synthesis.L2_40_32.up_filter": torch.zeros(12)}, "not of the shape"),
        ({}, {"synthesis.input.freqs": torch.zeros(32, 3)}, "not of the shape"),
        ({}, {"synthesis.input.transform": torch.zeros(2, 3)}, "not of the shape"),
        ({}, {"synthesis.L9_40_32.weight": torch.zeros(1)}, "which this network has not"),
        ({"num_layers": 5}, {}, "which this network has"),
        ({"num_layers": 2}, {}, "do not lead from"),
        ({"num_layers": 10**9}, {}, "num_layers"),
        ({"num_layers": 3000}, {}, "do not lead from"),
        ({"first_cutoff": 0.0}, {}, "do not lead from"),
        ({"first_cutoff": float("nan")}, {}, "first_cutoff"),
        ({"first_stopband": 100}, {}, "do not lead from"),
        ({"last_stopband_rel": -1.0}, {}, "do not lead from"),
        ({"channel_base": "many"}, {}, "no official networks"),
        ({"channel_base": 0}, {}, "leaves no channels"),
        ({"filter_size": 10_000}, {}, "not of the shape"),
        ({"filter_size": 0}, {}, "not of the shape"),
        ({"lrelu_upsampling": 1}, {}, "oversampling"),
        ({"img_resolution": 48}, {}, "size"),
        ({"mapping_kwargs": {"lr_multiplier": 1.0}}, {}, "lr_multiplier"),
        ({"mapping_kwargs": 3}, {}, "no official networks"),
        ({"use_radial_filters": True}, {}, "stylegan3r"),
        ({"z_dim": None}, {}, "num_z"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_networks_that_are_not_what_they_say(arguments: dict, changes: dict, reason: str, tmp_path: Path) -> None:
    made = snapshot("stylegan3t", tmp_path / "trap", "G", changes=changes, **arguments)
    (tmp_path / "G.pkl").write_bytes(made)
    with pytest.raises(CountermarkError, match=reason) as caught:
        import_run([tmp_path / "G.pkl"], model="stylegan3t", out=tmp_path / "run")
    assert str(caught.value).isprintable()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("model", MODELS)
def test_each_refuses_the_other(model: str, tmp_path: Path) -> None:
    (other,) = set(MODELS) - {model}
    (tmp_path / "G.pkl").write_bytes(snapshot(other, tmp_path / "trap", "G"))
    with pytest.raises(CountermarkError, match=f"they are of {other}"):
        import_run([tmp_path / "G.pkl"], model=model, out=tmp_path / "run")
