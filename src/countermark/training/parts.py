"""One batch in several parts, one after the other, so that only one part's activations need be in memory.

Each part has a thread, of which one runs at a time. Where parts must know what the others have (core/shares.py: a mean
over the whole batch), each gives its own and lets the next one run up to the same place; when all have given, they go
on in turn. So the parts of a batch equal the whole batch in every network, and how much memory they save is a matter
of how early each part's work must wait for the others': before batch normalisation everything does, after it nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from countermark.core.shares import Total

T = TypeVar("T")


def in_turns(num: int, work: Callable[[int, Total], T], beyond: Total) -> list[T]:
    """[work(i, total) for i in range(num)], where total(x) is the sum of what all of them give, taken `beyond`.

    beyond(x): the sum over other processes. Raises what a part raises.
    """
    if num == 1:
        return [work(0, beyond)]
    return _Turns(num, beyond).run(work)


class _Abandoned(Exception):
    """Another part failed."""


class _Turns:
    def __init__(self, num: int, beyond: Total) -> None:
        self.beyond = beyond
        self.turns = [threading.Semaphore(0) for _ in range(num)]
        self.given: list[Tensor] = []
        self.sum = torch.empty(0)
        self.errors: list[BaseException] = []

    def run(self, work: Callable[[int, Total], T]) -> list[T]:
        results: dict[int, T] = {}

        def part(i: int) -> None:
            self.turns[i].acquire()
            try:
                if not self.errors:
                    results[i] = work(i, lambda x: self._total(i, x))
            except BaseException as error:
                self.errors.append(error)
            finally:
                self._next(i)

        threads = [threading.Thread(target=part, args=(i,), daemon=True) for i in range(len(self.turns))]
        for thread in threads:
            thread.start()
        self.turns[0].release()
        try:
            for thread in threads:
                thread.join()
        except BaseException as error:  # an interruption: no thread may outlive it
            self.errors.append(error)
            for thread in threads:
                thread.join()
        if self.errors:
            raise self.errors[0]
        return [results[i] for i in range(len(threads))]

    def _next(self, i: int) -> None:
        self.turns[(i + 1) % len(self.turns)].release()

    def _total(self, i: int, x: Tensor) -> Tensor:
        self.given.append(x)
        if len(self.given) == len(self.turns):
            self.sum, self.given = self.beyond(torch.stack(self.given).sum(0)), []
        chance = torch.get_rng_state()  # torch's global generator is one for all threads
        self._next(i)
        self.turns[i].acquire()
        torch.set_rng_state(chance)
        if self.errors:
            raise _Abandoned
        return self.sum.clone()
