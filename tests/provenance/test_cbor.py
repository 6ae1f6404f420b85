import pytest

from countermark.provenance.cbor import MAX_DEPTH, NotDeterministic, Tagged, loads

# From appendix A of RFC 8949.
EXAMPLES = {
    "00": 0,
    "17": 23,
    "1818": 24,
    "1903e8": 1000,
    "1bffffffffffffffff": 2**64 - 1,
    "20": -1,
    "3903e7": -1000,
    "f93e00": 1.5,
    "fa47c35000": 100000.0,
    "fb3ff199999999999a": 1.1,
    "f4": False,
    "f5": True,
    "f6": None,
    "c11a514b67b0": Tagged(1, 1363896240),
    "4401020304": b"\1\2\3\4",
    "6449455446": "IETF",
    "62c3bc": "ü",
    "80": [],
    "8301820203820405": [1, [2, 3], [4, 5]],
    "a0": {},
    "a201020304": {1: 2, 3: 4},
    "a26161016162820203": {"a": 1, "b": [2, 3]},
}


@pytest.mark.parametrize(("spelled", "value"), EXAMPLES.items())
def test_the_examples_of_the_standard(spelled, value):
    assert loads(bytes.fromhex(spelled)) == value


@pytest.mark.parametrize(
    "spelled",
    [
        "",  # nothing
        "0000",  # two values
        "1817",  # 23 in two bytes
        "190018",  # 24 in three bytes
        "5800",  # an empty string in two bytes
        "5f42010243030405ff",  # indefinite length
        "9fff",
        "bfff",
        "44010203",  # cut short
        "8301",
        "9bffffffffffffffff",  # more than there can be
        "bbffffffffffffffff",
        "a2616101616102",  # a key twice
        "a1f600",  # a key that is neither text nor number
        "61ff",  # not UTF-8
        "f7",  # undefined
        "f818",
        "1c",  # reserved
        "81" * (MAX_DEPTH + 1) + "00",
        "c1" * 5000 + "00",
    ],
)
def test_every_other_spelling_is_refused(spelled):
    with pytest.raises(NotDeterministic):
        loads(bytes.fromhex(spelled))
