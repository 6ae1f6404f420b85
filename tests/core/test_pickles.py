"""The interpreter: plain values come back, names do what our table says, and nothing else happens."""

import ast
import pickle
import time
import tracemalloc
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.core.errors import CountermarkError
from countermark.core.foreign import read_checkpoint
from countermark.core.pickles import MAX_TEXT_BYTES, Budget, Built, Record, Refused, Table, as_dict, as_set, read
from tests import malice

SCALARS = st.none() | st.booleans() | st.integers(-(2**100), 2**100) | st.floats(allow_nan=False) | st.text()
KEYS = st.none() | st.text() | st.integers(-(2**31), 2**31 - 1)
VALUES = st.recursive(
    SCALARS | st.binary() | st.sets(KEYS),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner),
    max_leaves=30,
)
CONTAINERS = Table(
    functions={
        "builtins.set": as_set,
        "__builtin__.set": as_set,
        "_codecs.encode": lambda text, how: memoryview(text.encode(how)),
        "__builtin__.bytes": lambda: memoryview(b""),
        "collections.OrderedDict": as_dict,
    }
)


def load(data: bytes, table: Table = CONTAINERS, **options: Any) -> Any:
    value, stop = read(memoryview(data), table, options.pop("budget", Budget()), **options)
    assert stop == len(data)
    return value


def plain(value: Any) -> Any:
    """`value` with bytes instead of views of them."""
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value))
    return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else value


@given(VALUES, st.integers(2, pickle.HIGHEST_PROTOCOL))
@settings(max_examples=300, deadline=None)
def test_plain_values_come_back(value: Any, protocol: int) -> None:
    assert plain(load(pickle.dumps(value, protocol=protocol))) == value


def test_python_2_s_texts_and_ordered_dictionaries() -> None:
    stream = b"\x80\x02ccollections\nOrderedDict\nq\x00]q\x01]q\x02(U\x04main\x8a\x01\x05ea\x85Rq\x03."
    assert load(stream) == {"main": 5}
    assert load(b"\x80\x02T\x03\x00\x00\x00abc.") == "abc"
    assert load(pickle.dumps(OrderedDict(b=1, a=OrderedDict()))) == {"b": 1, "a": {}}


def test_one_file_may_hold_streams_one_after_the_other() -> None:
    data = memoryview(pickle.dumps([1]) + pickle.dumps("two"))
    first, stop = read(data, CONTAINERS, Budget())
    assert (first, read(data, CONTAINERS, Budget(), start=stop)) == ([1], ("two", len(data)))


def test_parts_that_are_shared_stay_shared_and_cycles_stay_cycles() -> None:
    part: list = [1]
    both = load(pickle.dumps([part, part]))
    assert both[0] is both[1]
    part.append(part)
    cycle = load(pickle.dumps(part))
    assert cycle[1] is cycle


class Place(Built):
    def build(self, state: Any) -> None:
        self.state = state


TABLE = Table(
    constants={"a.constant": 7},
    functions={"a.b.double": lambda number: 2 * number, "a.place": Place},
    records=("net.",),
)


def test_names_do_what_the_table_says() -> None:
    call, glob, stack_global, text = malice.call, malice.glob, malice.stack_global, malice.text
    assert load(glob("a.constant") + b".", TABLE) == 7
    assert load(call("a.b.double", b"K\x15") + b".", TABLE) == 42
    assert load(stack_global("a.b", "double") + b"K\x15\x85R.", TABLE) == 42
    assert load(call("a.place") + b"K\x05b.", TABLE).state == 5
    record = load(stack_global("net.Conv", "A") + b")\x81}" + text("width") + b"K\x03sb.", TABLE)
    assert isinstance(record, Record)
    assert (record.name, record.state) == ("net.Conv.A", {"width": 3})
    with pytest.raises(Refused, match=r"asks for net\.\.other|asks for other\.name"):
        load(glob("other.name") + b".", TABLE)


def test_references_go_to_their_reader_and_nowhere_else() -> None:
    assert load(b"K\x03Q.", persistent=lambda identifier: [identifier]) == [3]
    with pytest.raises(Refused, match="outside"):
        load(b"K\x03Q.")


def test_a_record_whose_state_is_shared_is_completed_alone() -> None:
    state = b"}q\x01" + malice.text("a") + b"K\x01s"
    stream = b"](" + b"".join(
        malice.glob("net.A") + b")\x81" + (state if i == 0 else b"h\x01") + b"b" + b"}" + malice.text("b") + b"K\x02sb"
        for i in range(2)
    )
    one, other = load(stream + b"e.", TABLE)
    assert one.state == other.state == {"a": 1, "b": 2}
    assert one.state is not other.state


@pytest.mark.parametrize("name", ["\n", "\x1b[31m", "a\u202eb"])
def test_a_refusal_is_one_printable_line(name: str) -> None:
    with pytest.raises(Refused) as caught:
        load(malice.stack_global(name, name) + b".")
    assert str(caught.value).isprintable()


def test_limits_hold_over_all_streams_of_a_file() -> None:
    budget = Budget(steps=100)
    load(b"(" * 50 + b"N.", budget=budget)
    with pytest.raises(Refused, match="steps"):
        load(b"(" * 50 + b"N.", budget=budget)
    budget = Budget(text_bytes=2 * MAX_TEXT_BYTES)
    for _ in range(2):
        load(malice.text("x" * MAX_TEXT_BYTES) + b".", budget=budget)
    with pytest.raises(Refused, match="over the limit"):
        load(malice.text("x") + b".", budget=budget)


@given(st.binary(max_size=300))
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_a_value_or_refused(data: bytes) -> None:
    assert malice.refusal(lambda: read(memoryview(data), TABLE, Budget(), persistent=list)).isprintable()


INSTRUCTIONS = st.sampled_from(
    [bytes([code]) for code in b"().NK]}ae\x81\x85\x86\x87\x88\x8f\x90\x93\x94RbhtquQs"]
    + [
        b"K\x00",
        b"h\x00",
        b"q\x00",
        b"X\x01\x00\x00\x00a",
        b"ca\nconstant\n",
        b"ca\nplace\n",
        b"cnet\nA\n",
        b"cos\nsystem\n",
    ]
)


@given(st.lists(INSTRUCTIONS, max_size=60))
@settings(max_examples=1000, deadline=None)
def test_any_instructions_are_a_value_or_refused(stream: list[bytes]) -> None:
    data = memoryview(b"".join(stream) + b".")
    assert malice.refusal(lambda: read(data, TABLE, Budget(), persistent=lambda part: part)).isprintable()


def test_nothing_in_the_package_unpickles() -> None:
    for path in (Path(__file__).parents[2] / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {"pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"} & set(modules), path
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                assert "weights_only=True" in ast.unparse(node), path


def test_nothing_is_ever_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    num = 0
    for name, data in malice.code(trap):
        line = malice.refusal(partial(read_checkpoint, data, "evil.pkl"))
        assert line.startswith("evil.pkl: cannot be imported: it "), name
        assert line.isprintable(), name
        assert not trap.exists(), name
        num += 1
    assert num > 250
    with pytest.raises(CountermarkError, match=r"it asks for posix\.system"):
        read_checkpoint(pickle.dumps({"G": malice.Reduced(malice.os.system, "true")}), "evil.pkl")


def test_bombs_cost_seconds_and_little_memory() -> None:
    for name, data in malice.bombs():
        started = time.monotonic()
        assert malice.refusal(partial(read_checkpoint, data, "bomb.pkl")).isprintable(), name
        assert time.monotonic() - started < 10, name


@pytest.mark.parametrize("name", ["many sets", "one text again and again"])
def test_the_worst_bombs_stay_below_a_few_hundred_megabytes(name: str) -> None:
    data = next(data for bomb, data in malice.bombs() if bomb == name)
    tracemalloc.start()
    try:
        with pytest.raises(CountermarkError):
            read_checkpoint(data, "bomb.pkl")
        assert tracemalloc.get_traced_memory()[1] < 300 * 2**20
    finally:
        tracemalloc.stop()
