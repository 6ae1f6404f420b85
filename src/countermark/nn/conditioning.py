"""How classes enter a network: conditional GANs append them to its input (arXiv:1411.1784)."""

from __future__ import annotations

import torch
from torch import Tensor


def with_classes(z: Tensor, c: Tensor | None) -> Tensor:
    """z [N,num_z] and one-hot c [N,num_classes] to [N,num_z+num_classes]; z itself where c is None."""
    return z if c is None else torch.cat([z, c], 1)


def with_class_planes(x: Tensor, c: Tensor | None) -> Tensor:
    """Pictures [N,C,H,W] and c [N,num_classes] to [N,C+num_classes,H,W], a constant plane a class."""
    return x if c is None else torch.cat([x, c[:, :, None, None].expand(-1, -1, *x.shape[-2:])], 1)
