"""NVIDIA's StyleGAN2 checkpoints, of stylegan2-ada-pytorch and stylegan3, become runs with the official outputs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from countermark.apps.cli import main
from countermark.core import checkpoint
from countermark.core.errors import CountermarkError
from countermark.jobs.importing import import_run
from countermark.models.image.stylegan2 import SPEC, Generator
from countermark.nn.resampling import KERNEL
from countermark.nn.stylegan2 import Discriminator
from countermark.training.run import read_config
from countermark.training.trained import Trained, load_run
from tests.official import golden, official_modules, pkl, tree

TOLERANCE = 1e-3  # of the official output's standard deviation, as in tests/parity
OLD = ("channel_base", "channel_max", "num_fp16_res", "conv_clamp")  # G's arguments that lay deeper before StyleGAN3
FILTERED_G = ("synthesis.b8", "synthesis.b8.conv0", "synthesis.b8.conv1")
FILTERED_D = ("b8", "b8.conv1", "b8.skip", "b4.conv")


def given(network: str, *, old: bool = False) -> dict[str, Any]:
    """The constructor's arguments of the fixture, as either repository writes them."""
    arguments = dict(golden("stylegan2")[2][network])
    if network == "D":
        return {**arguments, "block_kwargs": {}, "mapping_kwargs": {}, "epilogue_kwargs": {"mbstd_group_size": 4}}
    if not old:
        return {**arguments, "fused_modconv_default": "inference_only"}
    return {**arguments, "synthesis_kwargs": {name: arguments.pop(name) for name in OLD}} | {
        "mapping_kwargs": {**arguments["mapping_kwargs"], "embed_features": None, "lr_multiplier": 0.01}
    }


def snapshot(
    trap: Path,
    networks: str = "G D G_ema",
    *,
    old: bool = False,
    states: dict[str, dict[str, Tensor]] | None = None,
    arguments: dict[str, dict] | None = None,
) -> bytes:
    """What the official training writes; G_ema is G with all weights halved.

    states, arguments: by network, in place of the fixture's.
    """
    tensors = {**golden("stylegan2")[0], **(states or {})}
    tensors["G_ema"] = {key: t / 2 if key.endswith("weight") else t for key, t in tensors["G"].items()}
    constructed = {name: given(name[0], old=old) | (arguments or {}).get(name[0], {}) for name in tensors}
    with official_modules(trap) as modules:
        persistent = modules["training.networks"].Persistent
        made = {name: tree(persistent(**constructed[name]), tensors[name]) for name in networks.split()}
        return pkl(made, augment_pipe=None, cur_nimg=25_000_000)


def near(ours: Tensor, official: Tensor) -> bool:
    return bool((ours - official).abs().max() <= TOLERANCE * official.std())


def imported(tmp_path: Path, data: bytes) -> Trained:
    (tmp_path / "network-snapshot.pkl").write_bytes(data)
    import_run([tmp_path / "network-snapshot.pkl"], model="stylegan2", out=tmp_path / "run")
    return load_run(tmp_path / "run")


@pytest.mark.parametrize("old", [False, True], ids=["stylegan3", "stylegan2-ada-pytorch"])
def test_snapshots_give_the_official_outputs(old: bool, tmp_path: Path) -> None:
    _, official, config = golden("stylegan2")
    trained = imported(tmp_path, snapshot(tmp_path / "trap", "G D", old=old))
    G, D, c = trained.generator, trained.networks["D"], official["c"]
    assert near(G.mapping(official["z"], c, config["truncation_psi"]), official["ws_psi0p7"])  # type: ignore[operator]
    assert near(trained.render(official["ws_psi0p7"], c), official["img_const_noise"])
    assert near(D(official["img_const_noise"], c)[:, None], official["logits"])
    assert trained.nimg == 25_000_000
    assert (trained.settings.size, trained.settings.num_classes) == (32, 4)
    assert not (tmp_path / "trap").exists()


def test_the_average_is_sampled_and_g_is_trained_on(tmp_path: Path) -> None:
    (tmp_path / "all.pkl").write_bytes(snapshot(tmp_path / "trap"))
    groups, _ = checkpoint.load_state(import_run([tmp_path / "all.pkl"], model="stylegan2", out=tmp_path / "run"))
    key = "G.synthesis.b32.conv1.weight"
    assert torch.equal(groups["networks"][key], 2 * groups["averages"][key])
    assert read_config(tmp_path / "run")["fresh"] == ""


def test_the_command_line_imports_samples_and_trains_on(tmp_path: Path) -> None:
    run, file = tmp_path / "run", tmp_path / "network-snapshot.pkl"
    file.write_bytes(snapshot(tmp_path / "trap", "G_ema"))
    assert main(["import", str(file), "--model", "stylegan2", "--out", str(run)]) == 0
    assert read_config(run)["fresh"] == "D"
    words = ["sample", str(run), "--out", str(tmp_path / "samples"), "--seeds", "0-7", "--truncation", "0.7"]
    assert main(words) == 0
    for seed in range(8):  # a class for each picture: those that it was sampled with do not matter
        path = tmp_path / "data" / str(seed % 4) / f"{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "samples" / f"seed{seed:04d}.png").rename(path)
    words = ["train", "stylegan2", "--data", str(tmp_path / "data"), "--size", "32", "--images", "4", "batch=2"]
    shape = ["num_z=64", "w_dim=64", "num_embed=64", "channel_base=512", "channel_max=48", "augment=", "lr=1e-9"]
    assert main([*words, "--from", str(run), "--out", str(tmp_path / "next"), *shape]) == 0
    one, other = (load_run(folder).networks["G"].state_dict() for folder in (run, tmp_path / "next"))
    key = "synthesis.b32.conv1.weight"
    torch.testing.assert_close(other[key], one[key], atol=1e-4, rtol=0)


SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "without classes": ({"num_mapping_layers": 3}, {"num_mapping_layers": 8}),
    "embeddings": ({"num_classes": 3, "num_embed": 5}, {"num_classes": 3, "num_embed": 7, "num_cmap": 6}),
    "widths of their own": ({"channel_base": 100, "channel_max": 12}, {"channel_base": 200, "channel_max": 99}),
    "no skips": ({"channel_base": 1000, "channel_max": 8}, {"architecture": "orig", "group": 2}),
    "deviations": ({"channels": 1}, {"channels": 1, "num_deviations": 2, "group": 2**16}),
    "no deviations": ({}, {"num_deviations": 0}),
    "a projection without layers": ({"num_classes": 2}, {"num_classes": 2, "num_mapping_layers": 0}),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_networks_of_other_shapes(kind: str, tmp_path: Path) -> None:
    """Ours under the official names, with filters where the official code has them; shapes say everything."""
    torch.manual_seed(0)
    narrow = {"size": 16, "channel_base": 128, "channel_max": 16}
    latents = {"num_z": 9, "w_dim": 10, "num_mapping_layers": 2}
    G = Generator(**{**narrow, **latents, **SHAPES[kind][0]}).eval()
    D = Discriminator(**{**narrow, **SHAPES[kind][1]}).eval()
    states = {
        "G": {**G.state_dict(), **{f"{name}.resample_filter": KERNEL for name in FILTERED_G}},
        "D": {**D.state_dict(), **{f"{name}.resample_filter": KERNEL for name in FILTERED_D if "skip" not in name}},
    }
    mapping = {"num_layers": D.mapping.num_layers if D.mapping else 0, "lr_multiplier": 0.01 if D.mapping else 0.1}
    group = None if D.b4.group == 2**16 else D.b4.group
    told = {"D": {"mapping_kwargs": mapping, "epilogue_kwargs": {"mbstd_group_size": group}}}
    if kind == "a projection without layers":
        told["D"]["mapping_kwargs"]["lr_multiplier"] = 0.1
    trained = imported(tmp_path, snapshot(tmp_path / "trap", "G D", states=states, arguments=told))
    num_classes = SHAPES[kind][0].get("num_classes", 0)
    z, c = torch.randn(8, 9), torch.eye(num_classes)[torch.arange(8) % num_classes] if num_classes else None
    x = G(z, c)
    assert torch.equal(trained.networks["G"](z, c), x)
    assert torch.equal(trained.networks["D"](x, c), D(x, c))


@pytest.mark.parametrize(
    ("arguments", "changes", "reason"),
    [
        ({"mapping_kwargs": {"lr_multiplier": 1.0}}, {}, "lr_multiplier is 1.0"),
        ({"synthesis_kwargs": {"activation": "relu"}}, {}, "activation is 'relu'"),
        ({}, {"synthesis.b8.conv1.resample_filter": torch.ones(4, 4) / 16}, "resample_filter"),
        ({}, {"synthesis.b8.conv1.resample_filter": torch.ones(3)}, "resample_filter"),
        ({}, {"synthesis.b8.conv1.weight": torch.zeros(48, 48, 3, 4)}, "not of the shape"),
        ({}, {"synthesis.b8.conv1.noise_const": torch.zeros(1)}, "not of the shape"),
        ({}, {"synthesis.b64.conv1.bias": torch.zeros(8)}, "which this network has"),
        ({}, {"synthesis.b24.conv1.bias": torch.zeros(8)}, "which this network has not"),
        ({}, {"synthesis.b48.conv1.bias": torch.zeros(8)}, "size: 48"),
        ({}, {f"synthesis.b{2**62}.conv1.bias": torch.zeros(8)}, "size is not a value"),
        ({}, {"synthesis.b8.skip.weight": torch.zeros(48, 48, 1, 1)}, "which this network has not"),  # a residual G
        ({}, {f"synthesis.b{'9' * 200}.conv1.bias": torch.zeros(8)}, "size is not a value"),
        ({}, {"mapping.w_avg": torch.zeros(0)}, "no inputs"),
        ({}, {"mapping.fc0.weight": torch.zeros(64, 3)}, "num_z"),
        ({}, {"mapping.fc9.bias": torch.zeros(64)}, "which this network has"),
        ({}, {"synthesis.b32.conv1.bias": torch.zeros(0)}, "not of the shape"),
    ],
    ids=lambda value: (str(value) if not isinstance(value, dict) else str(list(value)))[:40],
)
def test_networks_that_are_not_what_they_say(arguments: dict, changes: dict, reason: str, tmp_path: Path) -> None:
    states = {"G": {**golden("stylegan2")[0]["G"], **changes}}
    made = snapshot(tmp_path / "trap", "G", states=states, arguments={"G": arguments})
    with pytest.raises(CountermarkError, match=reason) as caught:
        imported(tmp_path, made)
    assert str(caught.value).isprintable()
    assert not (tmp_path / "run").exists()


def test_no_other_model_takes_it_and_it_takes_no_other(tmp_path: Path) -> None:
    (tmp_path / "G.pkl").write_bytes(snapshot(tmp_path / "trap", "G"))
    for model in ("dcgan", "r3gan"):
        with pytest.raises(CountermarkError, match="no official networks"):
            import_run([tmp_path / "G.pkl"], model=model, out=tmp_path / "run")
    states, _, _ = golden("r3gan")
    with official_modules(tmp_path / "trap") as modules:
        (tmp_path / "other.pkl").write_bytes(pkl({"G": tree(modules["training.networks"].Network(), states["G"])}))
    with pytest.raises(CountermarkError, match="no official networks of stylegan2"):
        import_run([tmp_path / "other.pkl"], model="stylegan2", out=tmp_path / "run")


def test_the_settings_of_training_are_the_preset_s(tmp_path: Path) -> None:
    imported(tmp_path, snapshot(tmp_path / "trap", "G"))
    found = json.loads((tmp_path / "run" / "config.json").read_text())
    assert SPEC.presets[found["preset"]].size == 32
    assert (found["settings"]["channel_base"], found["settings"]["channel_max"]) == (512, 48)
    assert (found["settings"]["num_z"], found["settings"]["w_dim"], found["settings"]["num_mapping_layers"]) == (
        64,
        64,
        2,
    )
