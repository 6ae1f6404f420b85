"""What NVIDIA's checkpoints of StyleGAN2 and StyleGAN3 share: the shapes that they fix, and what must be as it is here.

They are a stranger's: whatever these functions raise means that they are not of these networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from countermark.core.errors import CountermarkError
from countermark.nn.resampling import KERNEL
from countermark.nn.style import MAPPING_LR_MULTIPLIER

WHOLE_BATCH = 2**16  # the size of D's groups where it is not bounded


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Raises CountermarkError for activations and learning rates that would give other outputs; no shape shows them.

    A mapping without layers, as D's of converted TensorFlow networks, has a rate that says nothing.
    """
    needed: dict[str, Any] = {"activation": "lrelu"}
    if arguments.get("num_layers") != 0:
        needed["lr_multiplier"] = MAPPING_LR_MULTIPLIER
    for name, value in arguments.items():
        if isinstance(value, Mapping):
            check_arguments(value)
        elif value != needed.get(name, value):
            raise CountermarkError(f"{name} is {value!r}, which is not built here")


def without_filters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state without its low-pass filters, constants here. Raises CountermarkError for others than KERNEL."""
    filters = {key for key in state if key.rpartition(".")[2] == "resample_filter"}
    if any(state[key].shape != KERNEL.shape or not torch.allclose(state[key].float(), KERNEL) for key in filters):
        raise CountermarkError("a resample_filter is not [1,3,3,1]")
    return {key: tensor for key, tensor in state.items() if key not in filters}


def mapping_shape(G: Mapping[str, Tensor]) -> dict[str, int]:
    """The settings that G's mapping fixes."""
    num_embed, num_classes = G["mapping.embed.weight"].shape if "mapping.embed.weight" in G else (0, 0)
    return {
        "num_classes": num_classes,
        "num_z": G["mapping.fc0.weight"].shape[1] - num_embed,
        "w_dim": G["mapping.w_avg"].shape[0],
        "num_mapping_layers": _num_layers(G),
        "num_embed": num_embed,
    }


def discriminator_shape(D: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that D fixes, but for its widths: shapes say all but the size of its groups."""
    has_classes = "mapping.embed.bias" in D
    epilogue = arguments.get("epilogue_kwargs") or {}
    return {
        "architecture": "resnet" if "b8.skip.weight" in D else "orig",
        "num_mapping_layers_d": _num_layers(D) if has_classes else 8,
        "num_embed_d": D["mapping.embed.bias"].shape[0] if has_classes else 0,
        "num_cmap": D["b4.out.bias"].shape[0] if has_classes else 0,
        "group": epilogue.get("mbstd_group_size", 4) or WHOLE_BATCH,
        "num_deviations": D["b4.conv.weight"].shape[1] - D["b4.conv.bias"].shape[0],
    }


def discriminator_widths(D: Mapping[str, Tensor]) -> dict[str, int]:
    """The two settings from which D's widths follow, `width_at` of nn/stylegan2.py."""
    widths = {int(key.split(".")[0][1:]): t.shape[0] for key, t in D.items() if key.endswith("conv0.bias")}
    widths[4] = D["b4.conv.bias"].shape[0]
    return {
        "channel_base_d": max(side * width for side, width in widths.items()),
        "channel_max_d": max(widths.values()),
    }


def _num_layers(state: Mapping[str, Tensor]) -> int:
    return sum(key.startswith("mapping.fc") and key.endswith(".bias") for key in state)
