"""Duplicates against all pairs compared one by one."""

import time
from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.jobs.duplicates import exact_groups, near_groups
from countermark.provenance.registry import MAX_NEAR_BITS


def flipped(look: bytes, bits: np.ndarray) -> bytes:
    table = np.unpackbits(np.frombuffer(look, np.uint8))
    table[bits] ^= 1
    return np.packbits(table).tobytes()


def groups_of_all_pairs(looks: dict[int, bytes]) -> list[list[int]]:
    group = {i: {i} for i in looks}
    for i, j in combinations(looks, 2):
        distance = (int.from_bytes(looks[i], "big") ^ int.from_bytes(looks[j], "big")).bit_count()
        if distance <= MAX_NEAR_BITS and group[i] is not group[j]:
            group[i] |= group[j]
            for member in group[j]:
                group[member] = group[i]
    return sorted(sorted(members) for members in {id(g): g for g in group.values()}.values() if len(members) > 1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 40))
def test_near_groups_are_those_of_all_pairs(seed: int, num: int) -> None:
    rng = np.random.default_rng(seed)
    looks: dict[int, bytes] = {}
    for i in range(num):
        origin = looks.get(int(rng.integers(0, i + 1)) * 3, rng.bytes(32))
        looks[3 * i] = flipped(origin, rng.choice(256, rng.integers(0, 2 * MAX_NEAR_BITS), replace=False))
    assert sorted(map(sorted, near_groups(looks, []))) == groups_of_all_pairs(looks)


def test_exact_duplicates_are_not_near_ones_too() -> None:
    exact = exact_groups({5: "a", 6: "b", 7: "a", 9: "a"})
    assert exact == [[5, 7, 9]]
    look, other = bytes(32), flipped(bytes(32), np.array([3]))
    assert near_groups({5: look, 7: look, 9: look}, exact) == []
    assert near_groups({5: look, 6: other, 7: look, 9: look}, exact) == [[5, 6]]


def test_ten_thousand_take_seconds_even_when_all_are_alike() -> None:
    rng = np.random.default_rng(0)
    start = time.process_time()
    assert near_groups({i: rng.bytes(32) for i in range(10_000)}, []) == []
    assert time.process_time() - start < 5
    start = time.process_time()
    alike = {i: flipped(bytes(32), rng.choice(256, 3, replace=False)) for i in range(5000)}
    assert near_groups(alike, []) == [list(range(5000))]
    assert time.process_time() - start < 20
