"""Pictures that are there twice: with the same pixels, or with nearly the same look."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from countermark.provenance.perceptual import NUM_BITS
from countermark.provenance.registry import MAX_NEAR_BITS

# Two hashes that differ in fewer bits than there are bands are alike in one band at least, and so it is enough to
# compare those that are, in place of all pairs.
NUM_BANDS = MAX_NEAR_BITS + 1
_AT_ONCE = 2**20  # pairs that are compared in one step


def exact_groups(pixels: Mapping[int, str]) -> list[list[int]]:
    """The pictures with equal hashes of their pixels, by number: every group of two and more."""
    alike = defaultdict(list)
    for index, value in pixels.items():
        alike[value].append(index)
    return [group for group in alike.values() if len(group) > 1]


def near_groups(looks: Mapping[int, bytes], exact: Sequence[Sequence[int]]) -> list[list[int]]:
    """The pictures whose perceptual hashes (32 bytes) lie within MAX_NEAR_BITS of 256, directly or by way of others.

    Of each group of exact duplicates only the first is looked at.
    """
    again = {index for group in exact for index in group[1:]}
    numbers = [index for index in looks if index not in again]
    if len(numbers) < 2:
        return []
    table = np.frombuffer(b"".join(looks[index] for index in numbers), np.uint64).reshape(-1, 4)
    first_of = np.arange(len(table))
    for columns in np.array_split(np.arange(NUM_BITS), NUM_BANDS):
        bits = np.unpackbits(table.view(np.uint8), axis=1)[:, columns]
        first_of = _joined_all(first_of, _near(table, bits @ (1 << np.arange(len(columns))), first_of))
    order = np.argsort(first_of, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(first_of[order])) + 1)
    return [[numbers[i] for i in group] for group in groups if len(group) > 1]


def _joined_all(first_of: np.ndarray, found: Iterable[np.ndarray]) -> np.ndarray:
    """[N]: the first member of the group of each, once the groups of all pairs [K,2] in `found` are joined, too."""
    waiting: list[np.ndarray] = []
    num_waiting = 0
    for pairs in found:
        waiting.append(pairs)
        num_waiting += len(pairs)
        if num_waiting > _AT_ONCE:
            first_of, waiting, num_waiting = _joined(first_of, waiting), [], 0
    return _joined(first_of, waiting)


def _joined(first_of: np.ndarray, waiting: Sequence[np.ndarray]) -> np.ndarray:
    pairs = np.concatenate([np.stack([np.arange(len(first_of)), first_of], axis=1), *waiting])
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(len(first_of),) * 2)
    _, labels = connected_components(graph, directed=False)
    return np.unique(labels, return_index=True)[1][labels]


def _near(table: np.ndarray, values: np.ndarray, first_of: np.ndarray) -> Iterator[np.ndarray]:
    """Pairs [K,2] of rows of uint64 [N,4] that are near and have equal `values` [N].

    What is of one group already is not compared again.
    """
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=-1))
    lengths = np.diff(starts, append=len(order))
    for start, length in zip(starts[lengths > 1], lengths[lengths > 1], strict=True):
        bucket = order[start : start + length]
        if not np.ptp(first_of[bucket]):
            continue
        for first, second in _pairs(length):
            rows, others = bucket[first], bucket[second]
            near = np.bitwise_count(table[rows] ^ table[others]).sum(axis=1) <= MAX_NEAR_BITS
            if near.any():
                yield np.stack([rows[near], others[near]], axis=1)


def _pairs(num: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs i < j of 0 .. num - 1, a bounded number at a time."""
    step = max(1, _AT_ONCE // max(num, 1))
    for start in range(0, num - 1, step):
        first, second = np.nonzero(np.arange(start, min(start + step, num))[:, None] < np.arange(num))
        yield first + start, second
