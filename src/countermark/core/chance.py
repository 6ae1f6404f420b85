"""Random numbers of which every sample of a batch has its own.

A batch may be worked through in shares: by several processes, by one in several parts, or both. Numbers are drawn for
the whole batch, and each share takes those of its own samples, so that the samples get the same numbers however the
batch is shared. Share `index` of `count` holds the samples index, index + count, ... of the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_SHARE: ContextVar[tuple[int, int]] = ContextVar("share", default=(0, 1))


@contextmanager
def share(index: int, count: int) -> Iterator[None]:
    """Within it, what is drawn is for share `index` of `count`."""
    token = _SHARE.set((index, count))
    try:
        yield
    finally:
        _SHARE.reset(token)


def part(whole: Tensor) -> Tensor:
    """This share's samples of a whole batch [N,...]."""
    index, count = _SHARE.get()
    return whole[index::count]


def randn(num: int, *shape: int, generator: torch.Generator | None = None) -> Tensor:
    """[num,*shape], standard normal; without a generator from torch's global one."""
    return part(torch.randn(num * _SHARE.get()[1], *shape, generator=generator))


def rand(num: int, *shape: int, generator: torch.Generator | None = None) -> Tensor:
    """[num,*shape], uniform in [0,1)."""
    return part(torch.rand(num * _SHARE.get()[1], *shape, generator=generator))


def randint(low: int, high: int, num: int, *shape: int, generator: torch.Generator | None = None) -> Tensor:
    """[num,*shape], whole numbers low .. high - 1."""
    return part(torch.randint(low, high, (num * _SHARE.get()[1], *shape), generator=generator))
