import heapq

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.provenance import ecc

messages = st.lists(st.integers(0, 1), min_size=64, max_size=64).map(lambda bits: np.array(bits, dtype=np.uint8))


def free_distance() -> int:
    """The least weight of a path that leaves the zero state and comes back, by Dijkstra over the trellis."""
    top = 1 << (ecc.CONSTRAINT - 1)

    def weight(register: int) -> int:
        return sum((register & generator).bit_count() & 1 for generator in ecc.GENERATORS)

    queue, best = [(weight(top), top >> 1)], {}
    while queue:
        distance, state = heapq.heappop(queue)
        if state == 0:
            return distance
        if best.setdefault(state, distance) < distance:
            continue
        for register in (state, state | top):
            heapq.heappush(queue, (distance + weight(register), register >> 1))
    raise AssertionError("the code never returns to the zero state")


def test_the_free_distance_is_that_of_the_paper() -> None:
    assert free_distance() == 24


def test_encoding_by_hand() -> None:
    signs = ecc.encode(np.array([1] + [0] * 63))
    assert len(signs) == ecc.code_length(64) == 288
    # A single one shifts through the register: its k-th step shows the k-th digit of every generator.
    for step in range(ecc.CONSTRAINT):
        digits = [(generator >> (ecc.CONSTRAINT - 1 - step)) & 1 for generator in ecc.GENERATORS]
        np.testing.assert_array_equal(signs[4 * step : 4 * step + 4], 1 - 2 * np.array(digits))
    assert (signs[4 * ecc.CONSTRAINT :] == 1).all()


@settings(max_examples=25, deadline=None)
@given(messages, st.sets(st.integers(0, 287), max_size=11))
def test_any_eleven_wrong_code_bits_are_corrected(bits: np.ndarray, wrong: set[int]) -> None:
    received = ecc.encode(bits)
    received[list(wrong)] *= -1
    np.testing.assert_array_equal(ecc.decode(received[None])[0], bits)


def test_soft_decoding_beats_the_noise_of_the_promise() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (200, 64))
    noisy = np.stack([ecc.encode(one) for one in bits]) + rng.normal(0, 1 / 0.9, (200, 288))
    assert (ecc.decode(noisy) == bits).all(axis=1).mean() > 0.95


def test_a_batch_is_decoded_as_its_rows() -> None:
    soft = np.random.default_rng(1).normal(size=(8, 288))
    np.testing.assert_array_equal(ecc.decode(soft), np.concatenate([ecc.decode(row[None]) for row in soft]))
