import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countermark.core.errors import UsageError
from countermark.provenance.payload import ID_BITS, KINDS, NUM_BYTES, VERSION, Payload, is_authentic, pack, unpack

KEY = bytes(range(32))
payloads = st.builds(Payload, st.just(VERSION), st.sampled_from(KINDS), st.integers(0, 2**ID_BITS - 1))


def test_layout_by_hand() -> None:
    # version 1 = 0001, kind protected = 10, id = 34 bits ending in 101: 0001 1000 ... 0101
    head = bytes([0b00011000, 0, 0, 0, 0b101])
    code = hmac.new(KEY, head, hashlib.sha256).digest()[:3]
    assert pack(Payload(1, "protected", 5), KEY) == head + code


@given(payloads, st.binary(min_size=1, max_size=64))
def test_round_trip_and_authenticity(payload: Payload, key: bytes) -> None:
    data = pack(payload, key)
    assert len(data) == NUM_BYTES
    assert unpack(data) == payload
    assert is_authentic(data, key)


@given(payloads, st.integers(0, 8 * NUM_BYTES - 1))
def test_no_changed_bit_is_authentic(payload: Payload, bit: int) -> None:
    changed = (int.from_bytes(pack(payload, KEY), "big") ^ (1 << bit)).to_bytes(NUM_BYTES, "big")
    # A change of the head passes with probability 2**-24; a change of the code never does.
    assert not is_authentic(changed, KEY)


def test_other_key_is_not_authentic() -> None:
    assert not is_authentic(pack(Payload(VERSION, "made", 7), KEY), KEY[::-1])


@pytest.mark.parametrize("data", [b"", b"1234567", b"123456789"])
def test_other_lengths(data: bytes) -> None:
    assert not is_authentic(data, KEY)
    with pytest.raises(UsageError, match="8 bytes"):
        unpack(data)


def test_unknown_version_or_kind_unpacks_to_none() -> None:
    assert unpack(bytes([0b00100000, 0, 0, 0, 0, 0, 0, 0])) is None
    assert unpack(bytes([0b00011100, 0, 0, 0, 0, 0, 0, 0])) is None
    assert unpack(bytes([0b00011000, 0, 0, 0, 0, 0, 0, 0])) == Payload(1, "protected", 0)


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        (Payload(2, "made", 0), "version 2"),
        (Payload(VERSION, "real", 0), "'real'"),
        (Payload(VERSION, "made", -1), "-1"),
        (Payload(VERSION, "made", 2**ID_BITS), str(2**ID_BITS)),
    ],
)
def test_values_that_do_not_fit_are_named(payload: Payload, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        pack(payload, KEY)
