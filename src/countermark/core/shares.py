"""Batches that are worked through in shares, and what each share must know of the whole batch nevertheless.

A batch is shared by several processes, by one process that takes several parts, or both. Share `index` of `count` holds
the samples index, index + count, ... of the batch. What a network says of a sample alone needs no other share; what it
takes from all samples, such as a mean, it asks for here. Outside `share` the batch is whole, and everything is as if
this file were not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Total = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Share:
    """Share `index` of `count`; sum_up(x) is the sum of what every share gives as its x.

    What asks for the whole batch is asked by every share, in the same order.
    """

    index: int = 0
    count: int = 1
    sum_up: Total = lambda x: x

    def total(self, x: Tensor) -> Tensor:
        """The sum over all shares of what each gives as x."""
        return x if self.count == 1 else _Total.apply(x, self.sum_up)

    def mean(self, x: Tensor) -> Tensor:
        """The mean over all shares of what each gives as x."""
        return x if self.count == 1 else self.total(x) / self.count

    def gather(self, x: Tensor) -> Tensor:
        """The whole batch [N,...], in its order, of which this share's samples are x [n,...]."""
        if self.count == 1:
            return x
        nothing = torch.zeros_like(x)
        return self.total(torch.stack([x if i == self.index else nothing for i in range(self.count)], 1).flatten(0, 1))


class _Total(torch.autograd.Function):
    """A sum over shares. Its gradient is a sum over shares again, so it can be differentiated any number of times."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sum_up: Total) -> Tensor:
        ctx.sum_up = sum_up
        return sum_up(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Total.apply(gradient, ctx.sum_up), None


_WHOLE = Share()
_SHARE: ContextVar[Share] = ContextVar("share", default=_WHOLE)
_num_open = 0  # shares that are worked on now. torch.compile sees a global, and does not see into a ContextVar


@contextmanager
def share(index: int, count: int, sum_up: Total = lambda x: x) -> Iterator[None]:
    """Within it, work is done on one share of a batch."""
    global _num_open
    if count == 1:
        yield
        return
    token = _SHARE.set(Share(index, count, sum_up))
    _num_open += 1
    try:
        yield
    finally:
        _num_open -= 1
        _SHARE.reset(token)


def current() -> Share:
    """The share that is worked on."""
    return _SHARE.get() if _num_open else _WHOLE


def whole(num: int) -> int:
    """How many there are in the batch of what a share has `num` of."""
    return num * current().count


def part(batch: Tensor) -> Tensor:
    """This share's samples of a whole batch [N,...]."""
    return batch[current().index :: current().count]


def mean(x: Tensor) -> Tensor:
    """`Share.mean` of the share that is worked on."""
    return current().mean(x)


def gather(x: Tensor) -> Tensor:
    """`Share.gather` of the share that is worked on."""
    return current().gather(x)
