"""What the tests of BigGAN and of BigGAN-deep share: the official constructors' arguments in our words."""

from __future__ import annotations

from typing import Any

import torch
from golden import Golden
from torch import nn

from countermark.nn.residual import biggan_widths, rename_official, sides_down

DEFAULTS = {
    "G_ch": 64,
    "D_ch": 64,
    "dim_z": 128,
    "shared_dim": 0,
    "hier": False,
    "G_shared": True,
    "resolution": 128,
    "G_attn": "64",
    "D_attn": "64",
    "n_classes": 1000,
    "G_depth": 2,
    "D_depth": 2,
}


def arguments(golden: Golden) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Those of G, those of D, and all the official ones."""
    config = {**DEFAULTS, **golden.config}
    size, num_classes = config["resolution"], config["n_classes"]
    widths = biggan_widths(size, config["G_ch"], config["D_ch"])
    chosen = {name: {int(side) for side in config[f"{name}_attn"].split("_")} for name in "GD"}
    # At 32 px the official D takes every block for one at 16 px, though the second already leaves 8.
    sides = set(sides_down(len(widths["widths_d"]) - 1)[1:])
    attention_d = (sides if 16 in chosen["D"] else set()) if size == 32 else chosen["D"] & sides
    return (
        {
            "num_z": golden.io["z"].shape[1],
            "num_embed": (config["shared_dim"] or config["dim_z"]) if config["G_shared"] else 0,
            "widths": widths["widths_g"],
            "attention": chosen["G"],
            "num_classes": num_classes,
        },
        {"widths": widths["widths_d"], "attention": attention_d, "num_classes": num_classes},
        config,
    )


@torch.no_grad()
def compare(golden: Golden, G: nn.Module, D: nn.Module) -> None:
    """Official weights and inputs give the official outputs."""
    golden.load(G.eval(), "G.", rename_official)
    golden.load(D.eval(), "D.", rename_official)
    c = nn.functional.one_hot(golden.io["y"], {**DEFAULTS, **golden.config}["n_classes"]).float()
    golden.check("img_eval", G(golden.io["z"], c))
    golden.check("logits_eval", D(golden.io["img_eval"], c)[:, None])
    assert not golden.unchecked
