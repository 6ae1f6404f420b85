"""Checkpoints that nobody should load: each tries to run code, to fill the memory, or to keep the reader busy."""

from __future__ import annotations

import io
import os
import pickle
import stat
import struct
import zipfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from countermark.core.errors import CountermarkError
from countermark.core.pickles import Refused
from tests.official import pth

PROTO = b"\x80\x04"


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def glob(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def stack_global(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def call(name: str, *arguments: bytes) -> bytes:
    return glob(name) + b"(" + b"".join(arguments) + b"tR"


def long1(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def legacy(value: bytes, keys: list[str], storages: list[tuple[int, bytes]]) -> bytes:
    """The format before PyTorch 1.6 around the stream of a value."""
    head = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    tail = b"".join(struct.pack("<q", numel) + data for numel, data in storages)
    return b"".join(head) + value + pickle.dumps(keys, 2) + tail


def reference(numel: int, key: str = "0", kind: str = "torch.FloatStorage") -> bytes:
    """A reference to a storage, as the format before PyTorch 1.6 has it."""
    return b"(" + text("storage") + glob(kind) + text(key) + text("cpu") + long1(numel) + b"NtQ"


def tensor(storage: bytes, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(long1, values)) + b"t"

    parts = (storage, long1(offset), numbers(shape), numbers(strides), b"\x89", call("collections.OrderedDict"))
    return call("torch._utils._rebuild_tensor_v2", *parts)


def state_dict(value: bytes) -> bytes:
    return b"\x80\x02}" + text("main.0.weight") + value + b"s."


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def refusal(attempt: Callable[[], object]) -> str:
    """The one line in which `attempt` was refused; '' when it was not."""
    try:
        attempt()
    except (Refused, CountermarkError) as error:
        return str(error)
    return ""


class Reduced:
    """An object that pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


CALLS = """
os.system posix.system nt.system os.popen os.execvp subprocess.Popen subprocess.check_output pty.spawn builtins.exec
builtins.eval builtins.compile builtins.open builtins.getattr builtins.setattr builtins.__import__ builtins.globals
builtins.apply __builtin__.eval __builtin__.execfile __builtin__.getattr __builtin__.object operator.attrgetter
operator.methodcaller operator.itemgetter functools.partial functools.reduce itertools.starmap importlib.import_module
runpy.run_path code.interact types.CodeType types.FunctionType types.MethodType copyreg._reconstructor
copyreg.__newobj__ copy_reg._reconstructor pickle.loads pickle.Unpickler _pickle.loads marshal.loads torch.load
torch.serialization.load torch.jit.load torch.hub.load torch.storage.UntypedStorage
torch.utils.cpp_extension.load_inline torch.utils.collect_env.run torch.Tensor numpy.load numpy.fromfile numpy.memmap
torch._utils._rebuild_wrapper_subclass torch._dynamo.guards.GuardBuilder.get ctypes.CDLL shutil.rmtree webbrowser.open
socket.create_connection pydoc.pipepager timeit.timeit cProfile.run bdb.Bdb.run logging.config.listen
numpy.testing._private.utils.runstring dnnlib.util.call_func_by_name dnnlib.util.open_url dnnlib.tflib.network.Network
torch_utils.persistence._src_to_module torch_utils.persistence.persistent_class codecs.open _codecs.lookup
collections.defaultdict collections.namedtuple builtins.type builtins.bytearray builtins.range
"""


def code(trap: Path) -> Iterator[tuple[str, bytes]]:
    """Files that try to run something; what runs makes `trap`."""
    command = f"touch {trap}"
    python = f"open({str(trap)!r}, 'w')"
    for name in CALLS.split():
        argument = text(python if "builtin" in name else command)
        yield f"GLOBAL {name}", b"\x80\x02" + call(name, argument) + b"."
        module, _, attribute = name.rpartition(".")
        yield f"STACK_GLOBAL {name}", PROTO + stack_global(module, attribute) + argument + b"\x85R."
        yield f"NEWOBJ {name}", PROTO + stack_global(module, attribute) + argument + b"\x85\x81."
    for function, arguments in ((os.system, (command,)), (exec, (python,)), (torch.load, (str(trap),))):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            yield f"{function} {protocol}", pickle.dumps({"G": Reduced(function, *arguments)}, protocol=protocol)
    quoted = repr(command).encode()
    yield "INST", b"(S" + quoted + b"\nios\nsystem\n."
    yield "OBJ", b"(" + glob("os.system") + text(command) + b"o."
    yield "NEWOBJ_EX", PROTO + stack_global("training.networks", "Generator") + b")}\x92."
    for code_number in (b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00"):
        yield f"EXT {code_number!r}", PROTO + code_number + b")R."
    yield "PERSID", b"Pos.system\n."
    yield "BINPERSID in a pickle", PROTO + text("os.system") + b"Q."
    yield "a getattr chain", PROTO + call("builtins.getattr", glob("os.system"), text("__call__")) + b"."
    for module, attribute in (
        ("torch", "_utils.os.system"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("torch.nn.modules", "module.os.system"),
        ("training", "networks.os.system"),
        ("collections", "OrderedDict.__subclasses__"),
        ("", "os.system"),
        ("os.system", ""),
    ):
        yield f"dotted {module} {attribute}", PROTO + stack_global(module, attribute) + text(command) + b"\x85R."
    yield "STACK_GLOBAL of no texts", PROTO + b"NN\x93."
    record = PROTO + stack_global("training.networks", "Generator") + b")\x81"
    function = glob("torch.storage._load_from_bytes")
    for name in ("__setstate__", "__class__", "__dict__", "__reduce_ex__", "__del__", "build", "name", "state"):
        inner = b"}" + text(name) + function + b"s"
        yield f"BUILD {name} of a record", record + inner + b"b}" + text("x") + text(command) + b"sb."
        yield f"BUILD {name} of a function", PROTO + function + inner + b"b."
        yield f"BUILD {name} of slots", record + b"N" + inner + b"\x86b."
        yield f"BUILD {name} of a dtype", PROTO + glob("torch.float32") + inner + b"b."
        yield f"BUILD {name} of a list", PROTO + b"]" + inner + b"b."
    yield "a call of a dtype", PROTO + call("torch.float32") + b"."
    yield "a call of a text", PROTO + text("os.system") + text(command) + b"\x85R."
    yield "a call of a record", record + text(command) + b"\x85R."
    yield "a class with arguments", PROTO + call("training.networks.Generator", text(command)) + b"."
    evil = b"\x80\x02" + call("os.system", text(command)) + b"."
    for name, inside in (
        ("a call", evil),
        ("a call in a checkpoint", legacy(evil, [], [])),
        ("a call in a zip", zipped({"a/data.pkl": evil})),
        ("a storage with a call in it", legacy(call("os.system", text(command)) + b".", [], [])),
        ("a tensor", pth({"x": torch.zeros(3)}, zipped=False)),
        ("a number", pickle.dumps(3)),
        (
            "a module",
            legacy(b"(" + text("module") + glob("training.networks.Generator") + text(python) + b"tQ.", [], []),
        ),
        ("nested storages", legacy(call("torch.storage._load_from_bytes", b"C\x01x") + b".", [], [])),
    ):
        data = b"B" + struct.pack("<I", len(inside)) + inside
        yield f"nested {name}", PROTO + call("torch.storage._load_from_bytes", data) + b"."
    meta = {"type": "class", "version": 6, "module_src": python, "class_name": 3, "state": {}}
    for change in ({}, {"class_name": "G", "state": []}, {"class_name": "G", "state": None}):
        function = glob("torch_utils.persistence._reconstruct_persistent_obj")
        yield f"persistent {change}", PROTO + function + pickle.dumps({**meta, **change}, 2)[2:-1] + b"\x85R."
    yield "module of old", legacy(b"(" + text("module") + text("x") + text("y") + text(python) + b"tQ.", [], [])
    yield "zip with a call", zipped({"archive/data.pkl": evil, "archive/data/0": b"1234"})
    yield "zip with code", zipped({"archive/data.pkl": call("__torch__.G") + b".", "archive/code/__torch__.py": b"x"})


def damage(trap: Path) -> Iterator[tuple[str, bytes]]:
    """Files whose parts do not fit together, or would have their reader leave them."""
    good = torch.zeros(6).numpy().tobytes()
    for name, arguments in {
        "larger": (0, (7,), (1,)),
        "behind": (1, (6,), (1,)),
        "before": (-1, (6,), (1,)),
        "strides": (0, (2, 3), (4, 1)),
        "backwards": (5, (6,), (-1,)),
        "expanded": (0, (10**12,), (0,)),
        "negative": (0, (-6,), (1,)),
        "uneven": (0, (6,), (1, 1)),
        "many dimensions": (0, (1,) * 10**5, (1,) * 10**5),
        "empty and huge": (0, (0, 2**62, 2**62), (1, 1, 1)),
        "huge numbers": (2**1000, (2**1000,), (2**1000,)),
    }.items():
        yield f"tensor {name}", legacy(state_dict(tensor(reference(6), *arguments)), ["0"], [(6, good)])
    whole = state_dict(tensor(reference(6), 0, (6,), (1,)))
    for name, file in {
        "less than declared": legacy(whole, ["0"], [(6, good[:-1])]),
        "another length": legacy(whole, ["0"], [(5, good)]),
        "no keys": legacy(whole, [], []),
        "other keys": legacy(whole, ["1"], [(6, good)]),
        "keys twice": legacy(whole, ["0", "0"], [(6, good), (6, good)]),
        "more behind": legacy(whole, ["0"], [(6, good), (6, good)]),
        "two kinds": legacy(
            b"\x80\x02]" + reference(6) + b"a" + reference(6, kind="torch.LongStorage") + b"a.", ["0"], [(6, good)]
        ),
        "two lengths": legacy(b"\x80\x02]" + reference(6) + b"a" + reference(5) + b"a.", ["0"], [(6, good)]),
        "huge": legacy(state_dict(tensor(reference(2**60), 0, (6,), (1,))), ["0"], [(2**60, good)]),
        "negative": legacy(state_dict(tensor(reference(-1), 0, (0,), (1,))), ["0"], [(-1, b"")]),
        "no storage": legacy(state_dict(tensor(text("x"), 0, (6,), (1,))), [], []),
        "another reference": legacy(state_dict(b"(" + text("file") + text("/etc/passwd") + b"tQ"), [], []),
        "a view": legacy(state_dict(tensor(reference(6)[:-3] + b")tQ", 0, (6,), (1,))), ["0"], [(6, good)]),
        "another byte order": legacy(whole, ["0"], [(6, good)]).replace(b"little_endian", b"little_indian"),
    }.items():
        yield f"storage: {name}", file
    pickled = whole.replace(b"NtQ", b"tQ")
    members = {"archive/data.pkl": pickled, "archive/data/0": good}
    outside = f"{trap.parent}/trap"
    link = zipfile.ZipInfo("archive/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    for name, file in {
        "nothing in it": zipped({}),
        "no checkpoint in it": zipped({"a.txt": b"hello"}),
        "no storage in it": zipped({"archive/data.pkl": pickled}),
        "short": zipped({**members, "archive/data/0": good[:-1]}),
        "long": zipped({**members, "archive/data/0": good + good}),
        "big-endian": zipped({**members, "archive/byteorder": b"big"}),
        "compressed": zipped({**members, "archive/data/0": good}, zipfile.ZIP_DEFLATED),
        "bomb": zipped({**members, "archive/data/0": bytes(2**28)}, zipfile.ZIP_DEFLATED),
        "lzma": zipped({**members, "archive/data/0": bytes(2**20)}, zipfile.ZIP_LZMA),
        "leaving up": zipped({**members, "archive/../../trap": b"x"}),
        "leaving to the root": zipped({**members, outside: b"x"}),
        "leaving by backslashes": zipped({**members, "archive/..\\..\\trap": b"x"}),
        "linking": zipped({**members, link: b"/etc/passwd"}),  # type: ignore[dict-item]
        "overlapping": _overlapping({**members, "archive/data/0": bytes(2**16)}),
        "two of one name": zipped({**members, "archive/data/1": good}).replace(b"archive/data/1", b"archive/data/0"),
        "another checksum": zipped(members).replace(good[:8], b"\x01" * 8, 1),
        "reference that leaves": zipped(
            {**members, "archive/data.pkl": pickled.replace(text("0"), text("../../../../etc/passwd"))}
        ),
        "cut": zipped(members)[:-5],
        "cut in the middle": zipped(members)[:80],
        "two roots": zipped({**members, "other/data.pkl": pickled}),
        "only a head": b"PK\x03\x04",
    }.items():
        yield f"zip: {name}", file
    numbers = (b"\x80\x02" + call("numpy.dtype", text("O")), b"\x80\x02" + call("numpy.dtype", text("V8")))
    for stream in numbers:
        yield f"numpy {stream[-9:]!r}", stream + b"."
    yield (
        "numpy scalar",
        PROTO + call("numpy.core.multiarray.scalar", call("numpy.dtype", text("f8")), b"C\x01x") + b".",
    )
    array = call("numpy.core.multiarray._reconstruct", glob("numpy.ndarray"), b"K\0\x85", b"C\x01b")
    kind = call("numpy.dtype", text("f8"))
    for name, state in {
        "short": b"(K\x01K\x05\x85" + kind + b"\x89C\x08" + bytes(8) + b"t",
        "of objects": b"(K\x01K\x05\x85" + kind + b"\x89]t",
        "of nothing": b"N",
        "huge": b"(K\x01(" + long1(2**40) * 8 + b"t" + kind + b"\x89C\x08" + bytes(8) + b"t",
    }.items():
        yield f"numpy array {name}", PROTO + array + state + b"b."
    yield "empty", b""
    yield "stop alone", b"."
    yield "no stop", PROTO + b"}"
    yield "text file", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n"
    yield "html", b"<!DOCTYPE html><html></html>"
    yield "tar", b"storages\0".ljust(1024, b"\0")
    yield "behind the end", pickle.dumps({"G": {"x": 1}}) + b"x"


def _overlapping(members: dict[str, bytes]) -> bytes:
    """A zip whose directory names one member a thousand times."""
    file = zipped(members)
    start, stop = file.index(b"PK\1\2"), file.index(b"PK\5\6")
    last = file[file.rindex(b"PK\1\2") : stop]
    directory = file[start:stop] + b"".join(last.replace(b"archive/data/0", b"archive/d%05d" % i) for i in range(1000))
    num = len(members) + 1000
    return file[:start] + directory + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, num, num, len(directory), start, 0)


def bombs() -> Iterator[tuple[str, bytes]]:
    """Files that are small or sound, and would cost a naive reader hours or gigabytes."""
    record = stack_global("training.networks", "Generator") + b")\x81"
    numbers = [bytes([i]) for i in range(200)]
    lists = b"(]q\0" + b"".join(b"](h%bh%beq%b" % (i, i, j) for i, j in pairwise(numbers)) + b"t"
    tuples = b")q\0" + b"".join(b"h%b\x86q%b" % (i, j) for i, j in pairwise(numbers))
    for name, inside in (
        ("a network", b"}" + text("G") + lists + b"s"),
        ("a fact", b"}" + text("cur_nimg") + lists + b"s"),
        ("arguments", b"}" + text("G") + record + _module(b"", b"", text("_init_kwargs") + lists) + b"bs"),
    ):
        yield f"lists of lists as {name}", PROTO + inside + b"."
    for name, inside in (
        ("a key", PROTO + b"}" + tuples + b"Ns."),
        ("an item of a set", PROTO + b"\x8f(" + tuples + b"\x90."),
        ("a reference", legacy(PROTO + tuples + b"Q.", [], [])),
        ("a key of storages", legacy(PROTO + b"N.", [], [])[:-4] + PROTO + b"](" + tuples + b"e."),
        ("an argument", PROTO + call("numpy.dtype", tuples) + b"."),
        ("a shape", legacy(state_dict(tensor(reference(1), 0, (1,), (1,)).replace(b"(\x8a\x01\x01t", tuples)), [], [])),
    ):
        yield f"tuples of tuples as {name}", inside
    itself = record + b"q\0"
    once, twice = (b"(" + b"".join(text(name) + b"h\0" for name in names) for names in ("a", "ab"))
    yield "a module in itself", PROTO + b"}" + text("G") + itself + _module(b"", once + b"u") + b"bs."
    yield "a module in itself twice", PROTO + b"}" + text("G") + itself + _module(b"", twice + b"u") + b"bs."
    yield "memo far away", PROTO + b"}r\xff\xff\xff\xff."
    yield "memo of everything", PROTO + b"}" + b"\x94" * 600_000 + b"."
    yield "deep lists", PROTO + b"]" * 250_000 + b"a" * 249_999 + b"."
    yield "deep tuples", PROTO + b")" + b"\x85" * 500_000 + b"."
    yield "deep dictionaries", PROTO + b"}K\1" * 150_000 + b"N" + b"s" * 150_000 + b"."
    yield "deep records", PROTO + (record + b"}K\1") * 50_000 + b"N" + b"sb" * 50_000 + b"."
    for name, opcode in {"marks": b"(", "sets": b"\x8f", "dictionaries": b"}", "values": b"N"}.items():
        yield f"many {name}", PROTO + opcode * 600_000 + b"."
    yield "many records", PROTO + record + record[:-2] + b"q\0" + b"h\0)\x81" * 170_000 + b"."
    yield "long number", PROTO + b"\x8b" + struct.pack("<i", 2**24) + b"\x7f" * 2**24 + b"."
    yield "negative length", PROTO + b"\x8b" + struct.pack("<i", -5) + b"12345."
    yield "long text", PROTO + text("x" * 2**24) + b"."
    yield "many long texts", PROTO + text("x" * 2**20) * 32 + b"."
    for opcode in (b"\x8d", b"\x8e", b"\x96"):
        yield f"length of {opcode!r}", PROTO + opcode + struct.pack("<Q", 2**62) + b"x."
    for opcode in (b"X", b"T", b"B"):
        yield f"length of {opcode!r}", PROTO + opcode + b"\xff\xff\xff\xff" + b"x."
    yield "a name without end", PROTO + b"c" + b"a" * 2**24
    yield "names of long texts", PROTO + text("x" * 2**20) + b"q\1" + b"h\1h\1\x93" * 1000 + b"."
    colliding = b"".join(long1(i * (2**61 - 1)) + b"N" for i in range(100_000))
    yield "keys that collide", PROTO + b"}(" + colliding + b"u."
    items = b"](" + b"K\1" * 200_000 + b"eq\1"
    pairs = b"}(" + b"".join(b"J" + struct.pack("<i", i) + b"N" for i in range(150_000)) + b"uq\1"
    storage = legacy(PROTO + reference(0) + b".", ["0"], [(0, b"")])
    data = b"B" + struct.pack("<I", len(storage)) + storage + b"q\1"
    for function, argument in (
        ("builtins.set", items),
        ("collections.OrderedDict", items),
        ("torch_utils.persistence._reconstruct_persistent_obj", pairs),
        ("torch.storage._load_from_bytes", data),
    ):
        yield (
            f"{function} again and again",
            PROTO + argument + glob(function) + b"q\2" + b"h\2h\1\x85R" * 150_000 + b".",
        )
    yield "one state again and again", PROTO + pairs + (record + b"h\1b") * 5000 + b"."
    encode = text("x" * 2**20) + b"q\1" + text("latin1") + b"q\3" + glob("_codecs.encode") + b"q\2"
    yield "one text again and again", PROTO + encode + b"h\2h\1h\3\x86R" * 100_000 + b"."
    view = tensor(reference(2**20), 0, (2**20,), (1,)) + b"q\1"
    keys = b"".join(text(f"main.{i}.weight") + b"h\1" for i in range(20_000))
    yield "one tensor again and again", legacy(PROTO + view + b"}(" + keys + b"u.", ["0"], [(2**20, bytes(2**22))])


def _module(parameters: bytes, modules: bytes, more: bytes = b"") -> bytes:
    """The state of a module: streams that fill its dictionaries."""
    return b"}(" + text("_parameters") + b"}" + parameters + text("_modules") + b"}" + modules + more + b"u"
