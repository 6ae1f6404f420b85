"""Reading many pictures, a few at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from countermark.core.errors import CountermarkError
from countermark.core.tracking import Track, untracked

NUM_THREADS = min(8, os.cpu_count() or 1)
T = TypeVar("T")


def attempts(
    read: Callable[[int], T], num: int, track: Track = untracked, what: str = "reading pictures"
) -> Generator[T | CountermarkError, None, None]:
    """`read(i)` for i = 0 .. num - 1 in this order, or the error that it raised.

    Threads are no more than a few pictures ahead of the caller, so that hostile sizes never pile up in memory.
    """

    def attempt(index: int) -> T | CountermarkError:
        try:
            return read(index)
        except CountermarkError as error:
            return error

    ahead: deque[Future[T | CountermarkError]] = deque()
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        for index in track(range(num), what, num):
            ahead.append(pool.submit(attempt, index))
            if len(ahead) > NUM_THREADS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def unreadable(num: str, total: int, first: object) -> CountermarkError:
    """What to raise when `num` pictures of `total` cannot be read; first: what is wrong with the first."""
    return CountermarkError(f"data: {num} of {total} pictures cannot be read; remove them; first: {first}")
