"""Random numbers of which every sample of a batch has its own.

They are drawn for the whole batch, and a share (core/shares.py) takes those of its own samples, so that the samples get
the same numbers however the batch is shared.
"""

from __future__ import annotations

import torch
from torch import Tensor

from countermark.core.shares import part, whole


def randn(num: int, *shape: int, generator: torch.Generator | None = None) -> Tensor:
    """[num,*shape], standard normal; without a generator from torch's global one."""
    return part(torch.randn(whole(num), *shape, generator=generator))


def rand(num: int, *shape: int, generator: torch.Generator | None = None) -> Tensor:
    """[num,*shape], uniform in [0,1)."""
    return part(torch.rand(whole(num), *shape, generator=generator))


def randint(low: int, high: int, num: int, *shape: int, generator: torch.Generator | None = None) -> Tensor:
    """[num,*shape], whole numbers low .. high - 1."""
    return part(torch.randint(low, high, (whole(num), *shape), generator=generator))
