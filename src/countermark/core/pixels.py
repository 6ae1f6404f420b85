"""Pictures are uint8 [N,H,W,C] at the edges and float32 [N,C,H,W] in [-1,1] inside; this is the way in and out."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_tensor(images: np.ndarray) -> Tensor:
    """uint8 [N,H,W,C] to float32 [N,C,H,W] in [-1,1]; float32 (`data/made.py`) is in that range already."""
    x = torch.tensor(images).permute(0, 3, 1, 2).contiguous()
    return x / 127.5 - 1 if x.dtype == torch.uint8 else x


def to_uint8(images: Tensor) -> np.ndarray:
    """float [N,C,H,W] in [-1,1] (clipped) to uint8 [N,H,W,C]."""
    return (images.float() * 127.5 + 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
