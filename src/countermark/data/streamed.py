"""Pictures that are decoded when they are asked for, of which no more than fit into a cap stay in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any

import numpy as np

AT_ONCE = 64  # pictures of one request that are decoded at a time


class Decoded:
    """Pictures by number, decoded by threads; of more than `most` those go that were not asked for for longest.

    decode: gives uint8 [H,W,C] for a number, alike at every call.
    """

    def __init__(self, decode: Callable[[int], np.ndarray], most: int, threads: int) -> None:
        self.decode, self.most = decode, most
        self.pool = ThreadPoolExecutor(threads, "decode")
        self.kept: OrderedDict[int, Future[np.ndarray]] = OrderedDict()
        self.lock = Lock()

    def ask(self, number: int) -> Future[np.ndarray]:
        """The picture, now or soon. What could not be decoded is tried again when it is asked for again."""
        with self.lock:
            future = self.kept.pop(number, None)
            if future is None or (future.done() and future.exception()):
                future = self.pool.submit(self.decode, number)
            self.kept[number] = future
            while len(self.kept) > self.most:
                self.kept.popitem(last=False)
        return future


class Streamed:
    """A set, or a part of one, that is read like an array uint8 [N,H,W,C] and never lies in memory as a whole."""

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, decoded: Decoded, chosen: np.ndarray, shape: tuple[int, int, int]) -> None:
        self.decoded, self.chosen = decoded, chosen
        self.shape = (len(chosen), *shape)

    @property
    def most(self) -> int:
        """How many pictures fit into the cap."""
        return self.decoded.most

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, places: Any) -> np.ndarray:
        """As an array: [H,W,C] for a number, [n,H,W,C] for a slice or numbers. Raises CountermarkError as a Source."""
        numbers = self.chosen[places]
        if numbers.ndim == 0:
            return self.decoded.ask(int(numbers)).result()
        images = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        step = min(AT_ONCE, self.most)
        for start in range(0, len(numbers), step):
            asked = [self.decoded.ask(int(number)) for number in numbers[start : start + step]]
            for place, future in enumerate(asked, start):
                images[place] = future.result()
        return images

    def part(self, places: np.ndarray) -> Streamed:
        """The pictures at `places`, under the same cap."""
        return Streamed(self.decoded, self.chosen[places], self.shape[1:])

    def expect(self, places: np.ndarray) -> None:
        """Have these decoded in the background: they are asked for next. At most half of what fits is taken up."""
        for number in self.chosen[places[: self.most // 2]]:
            self.decoded.ask(int(number))


Pictures = np.ndarray | Streamed
