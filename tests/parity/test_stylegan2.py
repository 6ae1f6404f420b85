"""StyleGAN2 equals the official networks: styles, pictures, logits."""

from typing import Any

import torch
from golden import Golden
from torch import Tensor, nn

from countermark.models.image.stylegan2 import Generator
from countermark.nn.resampling import KERNEL
from countermark.nn.stylegan2 import Discriminator


def _shape(config: dict[str, Any], layers: str) -> dict[str, Any]:
    mapping = config.get("mapping_kwargs", {})
    return {
        "size": config["img_resolution"],
        "channels": config["img_channels"],
        "num_classes": config["c_dim"],
        "channel_base": config.get("channel_base", 32768),
        "channel_max": config.get("channel_max", 512),
        "num_embed": mapping.get("embed_features") or 0,
        layers: mapping.get("num_layers", 8),
    }


def _generator(config: dict[str, Any]) -> Generator:
    config = {**config.get("synthesis_kwargs", {}), **config}
    latents = {"num_z": config["z_dim"], "w_dim": config["w_dim"]}
    return Generator(**_shape(config, "num_mapping_layers"), **latents)


def _discriminator(config: dict[str, Any]) -> Discriminator:
    epilogue = config.get("epilogue_kwargs", {})
    return Discriminator(
        **_shape(config, "num_mapping_layers"),
        architecture=config.get("architecture", "resnet"),
        num_cmap=config.get("cmap_dim") or 0,
        group=epilogue.get("mbstd_group_size", 4),
        num_deviations=epilogue.get("mbstd_num_channels", 1),
    )


def _load(network: nn.Module, golden: Golden, prefix: str) -> None:
    """All official tensors: filters, which are constants of ours, must have their values."""
    state: dict[str, Tensor] = {}
    for key, tensor in golden.below(prefix, lambda key: key).items():
        if key.endswith("resample_filter"):
            torch.testing.assert_close(tensor, KERNEL)
        else:
            state[key] = tensor
    network.eval().load_state_dict(state)


@torch.no_grad()
def test_stylegan2_equals_the_official_one() -> None:
    golden = Golden("stylegan2", inputs=("z", "c"))
    G, D = _generator(golden.config["G"]), _discriminator(golden.config["D"])
    _load(G, golden, "G.")
    _load(D, golden, "D.")
    assert golden.config["noise_mode"] == "const"
    c_g, c_d = (golden.io["c"] if golden.config[name]["c_dim"] else None for name in "GD")
    ws = G.mapping(golden.io["z"], c_g, golden.config["truncation_psi"])
    (truncated,) = (name for name in golden.io if name.startswith("ws_psi"))
    golden.check(truncated, ws)
    golden.check("img_const_noise", G.synthesis(golden.io[truncated]))
    golden.check("logits", D(golden.io["img_const_noise"], c_d)[:, None])
    assert not golden.unchecked
