"""Pickle streams of strangers, read as data: an interpreter that builds containers and calls nothing but our table.

Python's own Unpickler cannot be made safe by refusing names: BUILD sets attributes on whatever lies on the stack, a
memo index of four billion reserves its memory, and a dictionary's key may be a tuple whose hash takes for ever. This
interpreter knows the opcodes that checkpoints are written with (protocols 2 to 5) and no other. A name in a stream is a
key of a Table: a constant, a function of ours, or a class that becomes an inert Record. Nothing is imported, no
attribute is set, and nothing that a stream names or builds is ever called. Work and memory are bounded by a budget of
steps: one an instruction, and one an item that is given to a function, since a stream may give it again and again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from countermark.core.text import printable

MAX_STEPS = 2**19  # official checkpoints with their optimisers' states take a fifth of that
MAX_TEXT_BYTES = 2**20  # of one string; official ones embed whole modules of source text
MAX_ALL_TEXT_BYTES = 2**24
MAX_NAME_BYTES = 256
MAX_INT_BYTES = 255
_INT32 = range(-(2**31), 2**31)


class Refused(Exception):
    """A stream that is damaged, or asks for more than data."""


@dataclass(frozen=True)
class Table:
    """The names, as `module.name`, that a stream may use.

    constants: what a name stands for. functions: what may be called by it, with arguments from the stream: ours, and
    without effects. records: beginnings of names of classes whose instances become Records.
    """

    constants: Mapping[str, Any] = field(default_factory=dict)
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    records: tuple[str, ...] = ()


@dataclass
class Budget:
    """What all streams of one file together may still use."""

    steps: int = MAX_STEPS
    text_bytes: int = MAX_ALL_TEXT_BYTES

    def spend(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise Refused(f"it takes more than {MAX_STEPS} steps")

    def spend_text(self, num_bytes: int) -> None:
        self.text_bytes -= num_bytes
        if num_bytes > MAX_TEXT_BYTES or self.text_bytes < 0:
            raise Refused(f"it has a text of {num_bytes} bytes, which is over the limit")


class Built:
    """An object of ours that a stream may complete by a state."""

    def build(self, state: Any) -> None:
        raise Refused(f"it has a state for a {type(self).__name__}")


class Record(Built):
    """What a stream says about an instance: the name of its class and its attributes. Compared by identity."""

    def __init__(self, name: str, state: dict[Any, Any]) -> None:
        self.name = name
        self.state = _attributes(state)

    def build(self, state: Any) -> None:
        self.state = {**self.state, **_attributes(state)}


def _attributes(state: Any) -> dict[Any, Any]:
    if type(state) is not dict:
        raise Refused("it has attributes that are no dictionary")
    return state


@dataclass(frozen=True)
class _Name:
    """A function or a class of the table, on the stack: inert until REDUCE or NEWOBJ looks it up."""

    text: str


def read(
    data: memoryview,
    table: Table,
    budget: Budget,
    *,
    start: int = 0,
    persistent: Callable[[Any], Any] | None = None,
) -> tuple[Any, int]:
    """The value of the stream that begins at `start`, and where the stream ends.

    The value is made of None, bool, int, float, str, memoryview (bytes), list, tuple, dict, set, Record, and what the
    table and `persistent`, which gets persistent identifiers, return. It may contain itself, and repeat parts of itself
    any number of times. Raises Refused for everything that is not in the table, damaged, or over the limits.
    """
    machine = _Machine(data, start, table, budget, persistent)
    try:
        return machine.run(), machine.position
    except (LookupError, TypeError, ValueError, OverflowError, struct.error) as error:
        raise Refused(f"it is damaged at byte {machine.position} ({type(error).__name__})") from error


class _Machine:
    def __init__(
        self, data: memoryview, start: int, table: Table, budget: Budget, persistent: Callable[[Any], Any] | None
    ) -> None:
        self.data, self.position, self.table, self.budget = data, start, table, budget
        self.persistent = persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        while True:
            self.budget.spend(1)
            opcode = bytes(self.take(1))
            if opcode == b".":
                return self.stack.pop()
            if opcode not in _OPCODES:
                raise Refused(f"it has instruction {opcode!r} at byte {self.position - 1}, which no checkpoint needs")
            _OPCODES[opcode](self)

    # What follows an opcode in the stream.

    def take(self, num_bytes: int) -> memoryview:
        found = self.data[self.position : self.position + num_bytes]
        if len(found) < num_bytes:
            raise Refused("it ends in the middle")
        self.position += num_bytes
        return found

    def number(self, form: struct.Struct) -> Any:
        return form.unpack(self.take(form.size))[0]

    def line(self) -> str:
        stop = self.data[self.position : self.position + MAX_NAME_BYTES].tobytes().index(b"\n")
        found = self.text(stop)
        self.position += 1
        return found

    def text(self, num_bytes: int) -> str:
        self.budget.spend_text(num_bytes)
        return str(self.take(num_bytes), "utf-8", "replace")

    def integer(self, num_bytes: int) -> int:
        if not 0 <= num_bytes <= MAX_INT_BYTES:
            raise Refused(f"it has a number of {num_bytes} bytes, which is over the limit")
        return int.from_bytes(self.take(num_bytes), "little", signed=True)

    # What opcodes do.

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def since_mark(self) -> list[Any]:
        mark = self.marks.pop()
        found = self.stack[mark:]
        del self.stack[mark:]
        return found

    def last(self, num: int) -> tuple[Any, ...]:
        return tuple(self.stack.pop() for _ in range(num))[::-1]

    def name(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise Refused("it has a name that is no text")
        if len(module) + len(name) > MAX_NAME_BYTES:
            raise Refused("it asks for a name that is too long")
        text = f"{module}.{name}"
        if text in self.table.constants:
            self.push(self.table.constants[text])
        elif text in self.table.functions or text.startswith(self.table.records):
            self.push(_Name(text))
        else:
            raise Refused(f"it asks for {printable(text)}, which no checkpoint needs")

    def call(self) -> None:
        named, arguments = self.last(2)
        if type(named) is not _Name or type(arguments) is not tuple:
            raise Refused("it calls something that is no name")
        self.budget.spend(_num_items(arguments) + sum(map(_num_items, arguments)))
        if named.text in self.table.functions:
            self.push(self.table.functions[named.text](*arguments))
        elif arguments:
            raise Refused(f"it has arguments for a {printable(named.text)}")
        else:
            self.push(Record(named.text, {}))

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        self.budget.spend(_num_items(state))
        if isinstance(target, Built):
            target.build(state)
        elif type(target) is not dict or type(state) is not dict:  # attributes of an OrderedDict are left out
            raise Refused(f"it has a state for a {type(target).__name__}")

    def put(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise Refused("it has pairs for something that is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise Refused("it has items for something that is no list")
        target.extend(items)

    def add(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not set:
            raise Refused("it has items for something that is no set")
        target.update(map(_key, items))

    def refer(self) -> None:
        if self.persistent is None:
            raise Refused("it refers to something outside of it")
        self.push(self.persistent(self.stack.pop()))


def _num_items(value: Any) -> int:
    if type(value) is str:
        return len(value) // 64
    return len(value) if type(value) in (tuple, list, dict, set) else 0


def _key(key: Any) -> Any:
    """`key`, if it is of a kind that hashes at once and that nobody can make collide."""
    if type(key) in (str, bool, type(None)) or (type(key) is int and key in _INT32):
        return key
    raise Refused(f"it has a key of type {type(key).__name__} where checkpoints have texts and small numbers")


def as_set(items: Any = ()) -> set[Any]:
    """A set of what a list holds, as protocols below 4 write sets."""
    return set(map(_key, items))


def as_dict(pairs: Any = ()) -> dict[Any, Any]:
    """A dictionary of a list of pairs, as Python 2 wrote ordered dictionaries."""
    return {_key(key): value for key, value in pairs}


_U8, _U16, _U32, _U64 = (struct.Struct(form) for form in ("<B", "<H", "<I", "<Q"))
_I32, _F64 = struct.Struct("<i"), struct.Struct(">d")

_OPCODES: dict[bytes, Callable[[_Machine], Any]] = {
    # frames
    b"\x80": lambda m: m.take(1),  # PROTO, which the opcodes themselves show
    b"\x95": lambda m: m.take(8),  # FRAME
    b"(": lambda m: m.marks.append(len(m.stack)),  # MARK
    # scalars
    b"N": lambda m: m.push(None),  # NONE
    b"\x88": lambda m: m.push(True),  # NEWTRUE
    b"\x89": lambda m: m.push(False),  # NEWFALSE
    b"K": lambda m: m.push(m.number(_U8)),  # BININT1
    b"M": lambda m: m.push(m.number(_U16)),  # BININT2
    b"J": lambda m: m.push(m.number(_I32)),  # BININT
    b"\x8a": lambda m: m.push(m.integer(m.number(_U8))),  # LONG1
    b"\x8b": lambda m: m.push(m.integer(m.number(_I32))),  # LONG4
    b"G": lambda m: m.push(m.number(_F64)),  # BINFLOAT
    # texts (also Python 2's) and bytes
    b"\x8c": lambda m: m.push(m.text(m.number(_U8))),  # SHORT_BINUNICODE
    b"X": lambda m: m.push(m.text(m.number(_U32))),  # BINUNICODE
    b"\x8d": lambda m: m.push(m.text(m.number(_U64))),  # BINUNICODE8
    b"U": lambda m: m.push(m.text(m.number(_U8))),  # SHORT_BINSTRING
    b"T": lambda m: m.push(m.text(m.number(_U32))),  # BINSTRING
    b"C": lambda m: m.push(m.take(m.number(_U8))),  # SHORT_BINBYTES
    b"B": lambda m: m.push(m.take(m.number(_U32))),  # BINBYTES
    b"\x8e": lambda m: m.push(m.take(m.number(_U64))),  # BINBYTES8
    b"\x96": lambda m: m.push(m.take(m.number(_U64))),  # BYTEARRAY8
    # containers
    b")": lambda m: m.push(()),  # EMPTY_TUPLE
    b"\x85": lambda m: m.push(m.last(1)),  # TUPLE1
    b"\x86": lambda m: m.push(m.last(2)),  # TUPLE2
    b"\x87": lambda m: m.push(m.last(3)),  # TUPLE3
    b"t": lambda m: m.push(tuple(m.since_mark())),  # TUPLE
    b"]": lambda m: m.push([]),  # EMPTY_LIST
    b"a": lambda m: m.append(list(m.last(1))),  # APPEND
    b"e": lambda m: m.append(m.since_mark()),  # APPENDS
    b"}": lambda m: m.push({}),  # EMPTY_DICT
    b"s": lambda m: m.put(list(m.last(2))),  # SETITEM
    b"u": lambda m: m.put(m.since_mark()),  # SETITEMS
    b"\x8f": lambda m: m.push(set()),  # EMPTY_SET
    b"\x90": lambda m: m.add(m.since_mark()),  # ADDITEMS
    # the memo
    b"q": lambda m: m.remember(m.number(_U8)),  # BINPUT
    b"r": lambda m: m.remember(m.number(_U32)),  # LONG_BINPUT
    b"\x94": lambda m: m.remember(len(m.memo)),  # MEMOIZE
    b"h": lambda m: m.push(m.memo[m.number(_U8)]),  # BINGET
    b"j": lambda m: m.push(m.memo[m.number(_U32)]),  # LONG_BINGET
    # names, what they are called with, and what completes it
    b"c": lambda m: m.name(m.line(), m.line()),  # GLOBAL
    b"\x93": lambda m: m.name(*m.last(2)),  # STACK_GLOBAL
    b"R": lambda m: m.call(),  # REDUCE
    b"\x81": lambda m: m.call(),  # NEWOBJ
    b"b": lambda m: m.build(),  # BUILD
    b"Q": lambda m: m.refer(),  # BINPERSID
}
