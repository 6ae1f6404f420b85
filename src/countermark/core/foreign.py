"""Checkpoints of others, read without executing them: PyTorch's .pth files (both formats) and NVIDIA's network pickles.

  .pth since PyTorch 1.6   a zip: NAME/data.pkl, whose tensors refer to the members NAME/data/KEY
  .pth before              pickles one after the other: a magic number, a version, facts of the machine, the value, the
                           keys of its storages; then each storage: its length and its bytes
  .pkl                     one pickle; each storage is the bytes of a .pth file before 1.6 that holds it alone

In a .pkl, NVIDIA's `persistence` embeds the source text of a network's class, which is executed where it is loaded.
Here it is text like any other and left behind: what stays of a network is its class's name and its attributes.
"""

from __future__ import annotations

import io
import math
import re
import stat
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from countermark.core.errors import CountermarkError
from countermark.core.pickles import Budget, Built, Record, Refused, Table, as_dict, as_set, read
from countermark.core.text import printable

NETWORKS = ("G", "D", "G_ema")
_STATE_DICTS = {"netG_state_dict": "G", "netD_state_dict": "D"}  # as trainings after PyTorch's example call them
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001
_MAX_DIMS, _MAX_NUMEL = 8, 2**33  # elements: far more than a file may have bytes
_MAX_MEMBERS = 2**16
_MAX_DEPTH, _MAX_KEY = 32, 256  # of modules in modules, and of a name of one
_MAX_ARGUMENTS = 64  # in each of three levels


@dataclass(frozen=True)
class Network:
    """arguments: what its constructor got by name, plain values only ({} when the file does not say).

    tensors: parameters and buffers under the keys of its state dict; they may share memory.
    """

    arguments: dict[str, Any]
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """networks: those called G, D or G_ema, or one called "" for a file that is a state dict and nothing else.

    facts: what else the file says in plain values, by name.
    """

    networks: dict[str, Network]
    facts: dict[str, Any]


def read_checkpoint(data: bytes, name: str) -> Checkpoint:
    """What a .pth or .pkl file holds.

    Raises CountermarkError, with the file's `name`, for one that is damaged, something else, over the limits, or asks
    for more than data.
    """
    try:
        value = _parse(data)
        if whole := _network(value):
            return Checkpoint({"": whole}, {})
        if type(value) is not dict:
            raise Refused("it holds no networks by name and no state dict")
        names = {**{name: name for name in NETWORKS}, **_STATE_DICTS}
        networks = {name: found for key, name in names.items() if (found := _network(value.get(key)))}
        return Checkpoint(networks, _plain(dict(list(value.items())[:_MAX_ARGUMENTS])))
    except Refused as error:
        raise CountermarkError(f"{name}: cannot be imported: {error}") from error


def _parse(data: bytes) -> Any:
    """The value of a file, of plain containers, numbers, texts, StoredTensor and Record."""
    if data[:4] == b"PK\3\4":
        return _zipped(data)
    return _streamed(memoryview(data), _table(budget := Budget()), budget)


def _network(value: Any) -> Network | None:
    """The network that a module or a state dict stands for; None for anything else."""
    if isinstance(value, Record) and "_parameters" in value.state:
        arguments = _plain(value.state.get("_init_kwargs"))
        arguments = arguments if type(arguments) is dict else {}
        return Network(arguments, {key: stored.load() for key, stored in _stored_tensors(value).items()})
    if type(value) is dict and value and all(isinstance(stored, StoredTensor) for stored in value.values()):
        return Network({}, {str(key): stored.load() for key, stored in value.items()})
    return None


class Storage:
    """`numel` elements of `dtype`; `data` is set once its place in the file is known."""

    def __init__(self, dtype: torch.dtype, numel: int, data: memoryview | None = None) -> None:
        self.dtype, self.numel, self.data = dtype, numel, data
        if not 0 <= numel <= _MAX_NUMEL or (data is not None and len(data) != self.num_bytes):
            raise Refused("it has a storage of another length than its data")

    @property
    def num_bytes(self) -> int:
        return self.numel * self.dtype.itemsize

    @cached_property
    def tensor(self) -> Tensor:
        """All elements [numel], copied out of the file on first use: what nobody asks for costs nothing."""
        if not self.data:
            return torch.empty(0, dtype=self.dtype)
        if self.dtype is torch.bool:  # a byte that is neither 0 nor 1 is no bool
            return torch.frombuffer(bytearray(self.data), dtype=torch.uint8) != 0
        return torch.frombuffer(bytearray(self.data), dtype=self.dtype)


class StoredTensor(Built):
    """A view of a storage that lies inside it."""

    def __init__(self, storage: Any, offset: Any, shape: Any, strides: Any) -> None:
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides
        if not isinstance(storage, Storage) or not _are_counts((offset,)) or not _are_counts(shape, strides):
            raise Refused("it has a tensor that is none")
        if math.prod(shape) > storage.numel or math.prod(n or 1 for n in shape) > _MAX_NUMEL:
            raise Refused("it has a tensor that is larger than its storage")
        if 0 not in shape and offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) >= storage.numel:
            raise Refused("it has a tensor that reaches out of its storage")

    def load(self) -> Tensor:
        """The tensor; it shares memory with other views of its storage."""
        if 0 in self.shape:
            return torch.empty(self.shape, dtype=self.storage.dtype)
        return self.storage.tensor.as_strided(self.shape, self.strides, self.offset)


def _are_counts(*sequences: Any) -> bool:
    """Whether all are tuples of one length, at most _MAX_DIMS, of numbers that are not negative."""
    return (
        all(type(numbers) is tuple and len(numbers) <= _MAX_DIMS for numbers in sequences)
        and len(set(map(len, sequences))) == 1
        and all(type(number) is int and number >= 0 for numbers in sequences for number in numbers)
    )


# The two formats of .pth, and a plain pickle.


def _streamed(data: memoryview, table: Table, budget: Budget) -> Any:
    """A pickle, or the format before PyTorch 1.6."""
    value, position = read(data, table, budget)
    if type(value) is int and value == _MAGIC:
        value, position = _before_1_6(data, position, table, budget)
    if position != len(data):
        raise Refused(f"it goes on for {len(data) - position} bytes after its end")
    return value


def _before_1_6(data: memoryview, position: int, table: Table, budget: Budget) -> tuple[Any, int]:
    version, position = read(data, table, budget, start=position)
    machine, position = read(data, table, budget, start=position)
    if version != _VERSION or type(machine) is not dict or machine.get("little_endian") is not True:
        raise Refused("it is of another version or byte order")
    storages: dict[str, Storage] = {}

    def persistent(identifier: Any) -> Storage:
        match identifier:
            case ("storage", torch.dtype() as dtype, str(key), str(), int(numel), None):
                return _same(storages.setdefault(key, Storage(dtype, numel)), dtype, numel)
        raise Refused("it refers to something that is no storage")

    value, position = read(data, table, budget, start=position, persistent=persistent)
    keys, position = read(data, table, budget, start=position)
    if type(keys) is not list or any(type(key) is not str for key in keys) or sorted(keys) != sorted(storages):
        raise Refused("it has other storages than it refers to")
    for key in keys:
        storage, start = storages[key], position + 8
        if len(data) - start < storage.num_bytes:
            raise Refused(f"it has a storage of {storage.num_bytes} bytes that it does not hold")
        if struct.unpack("<q", data[position:start]) != (storage.numel,):
            raise Refused("it has a storage of another length than it says")
        position = start + storage.num_bytes
        storage.data = data[start:position]
    return value, position


def _zipped(data: bytes) -> Any:
    """The format since PyTorch 1.6. Members are read in place and never unpacked; PyTorch does not compress them."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except Exception as error:  # the zip reader has many errors for damaged data
        raise Refused(f"it is a damaged zip ({printable(error)})") from error
    members = {member.filename: member for member in archive.infolist()}
    root = next((name.removesuffix("data.pkl") for name in members if re.fullmatch(r"[^/\\]+/data\.pkl", name)), None)
    if root is None:
        raise Refused("it is a zip without a checkpoint in it (data.pkl)")
    _check_members(archive.infolist(), root, len(data))

    def contents(name: str) -> memoryview:
        if name not in members:
            raise Refused(f"it refers to {printable(name[:_MAX_KEY])}, which it does not hold")
        try:
            return memoryview(archive.read(members[name]))
        except Exception as error:
            raise Refused(f"it is a damaged zip ({printable(error)})") from error

    if f"{root}byteorder" in members and contents(f"{root}byteorder") != b"little":
        raise Refused("it is of another byte order")
    storages: dict[str, Storage] = {}

    def persistent(identifier: Any) -> Storage:
        match identifier:
            case ("storage", torch.dtype() as dtype, str(key), str(), int(numel)):
                if key not in storages:
                    storages[key] = Storage(dtype, numel, contents(f"{root}data/{key}"))
                return _same(storages[key], dtype, numel)
        raise Refused("it refers to something that is no storage")

    budget = Budget()
    return read(contents(f"{root}data.pkl"), _table(budget), budget, persistent=persistent)[0]


def _check_members(members: list[zipfile.ZipInfo], root: str, num_bytes: int) -> None:
    names = [member.filename for member in members]
    if len(names) > _MAX_MEMBERS or len(set(names)) < len(names):
        raise Refused("it is a zip with too many members, or with two of one name")
    for member in members:
        leaves = not member.filename.startswith(root) or ".." in re.split(r"[/\\]", member.filename)
        if leaves or stat.S_ISLNK(member.external_attr >> 16):
            raise Refused(f"it is a zip with a member that leaves it: {printable(member.filename[:_MAX_KEY])}")
        if member.compress_type != zipfile.ZIP_STORED:
            raise Refused("it is a compressed zip, which PyTorch does not write")
    if sum(member.file_size for member in members) > num_bytes:
        raise Refused("it is a zip whose members are larger than itself")


def _same(storage: Storage, dtype: torch.dtype, numel: int) -> Storage:
    if (storage.dtype, storage.numel) != (dtype, numel):
        raise Refused("it refers to one storage as two kinds")
    return storage


# What the names in checkpoints mean.


def _table(budget: Budget) -> Table:
    def nested(data: Any) -> Storage:
        """A storage in a pickle: a .pth file of its own, in which nothing but storages can be named."""
        if type(data) is not memoryview:
            raise Refused("it has a storage that is no bytes")
        storage = _streamed(data, Table(_CONSTANTS), budget)
        if not isinstance(storage, Storage):
            raise Refused("it has a storage that is none")
        return storage

    return Table(_CONSTANTS, {**_FUNCTIONS, "torch.storage._load_from_bytes": nested}, _CLASSES)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> StoredTensor:
    """rest: requires_grad and hooks, which are not for us."""
    return StoredTensor(storage, offset, shape, strides)


def _parameter(data: Any, *rest: Any) -> StoredTensor:
    if not isinstance(data, StoredTensor):
        raise Refused("it has a parameter that is no tensor")
    return data


def _persistent_object(meta: Any) -> Record:
    """NVIDIA's torch_utils.persistence: {type, version, module_src, class_name, state}; the source text is dropped."""
    if type(meta) is not dict or type(meta.get("class_name")) is not str or type(meta.get("state")) is not dict:
        raise Refused("it has a persistent object that is none")
    return Record(meta["class_name"], meta["state"])


class _NumpyType(Built):
    """A plain numpy dtype: code such as 'f4'."""

    def __init__(self, code: Any, *rest: Any) -> None:
        self.dtype = _NUMPY_KINDS.get(code) if type(code) is str else None
        if self.dtype is None:
            raise Refused("it has an array of something that is no plain number")

    def build(self, state: Any) -> None:
        """state: version, byte order, then what only structured types have."""
        if type(state) is not tuple or state[1] not in ("<", "|", "=") or any(state[2:5]):
            raise Refused("it has an array of another byte order, or of structures")


class _Array(StoredTensor):
    """A numpy array, made empty and then given its state."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(Storage(torch.uint8, 0), 0, (0,), (1,))

    def build(self, state: Any) -> None:
        _, shape, kind, is_fortran, data = state
        super().__init__(*_array_layout(data, kind, shape, "F" if is_fortran else "C"))


def _array_layout(data: Any, kind: Any, shape: Any, order: Any) -> tuple[Storage, int, Any, tuple[int, ...]]:
    if type(data) is not memoryview or not isinstance(kind, _NumpyType) or not _are_counts(shape):
        raise Refused("it has an array that is none")
    assert kind.dtype is not None
    strides = [math.prod(shape[:i] if order == "F" else shape[i + 1 :]) for i in range(len(shape))]
    return Storage(kind.dtype, math.prod(shape), data), 0, shape, tuple(strides)


def _array(data: Any, kind: Any, shape: Any, order: Any) -> StoredTensor:
    return StoredTensor(*_array_layout(data, kind, shape, order))


def _scalar(kind: Any, data: Any) -> bool | int | float:
    return StoredTensor(*_array_layout(data, kind, (), "C")).load().item()


def _bytes(text: Any, encoding: Any) -> memoryview:
    """Bytes, as protocol 2 writes them."""
    if type(text) is not str or encoding != "latin1":
        raise Refused("it has bytes that are none")
    return memoryview(text.encode("latin1"))


_KINDS = {  # dtypes, the names of their storages, and numpy's codes
    torch.float64: ("Double", "f8"),
    torch.float32: ("Float", "f4"),
    torch.float16: ("Half", "f2"),
    torch.bfloat16: ("BFloat16", ""),
    torch.int64: ("Long", "i8"),
    torch.int32: ("Int", "i4"),
    torch.int16: ("Short", "i2"),
    torch.int8: ("Char", "i1"),
    torch.uint8: ("Byte", "u1"),
    torch.bool: ("Bool", "b1"),
}
_NUMPY_KINDS = {code: dtype for dtype, (_, code) in _KINDS.items()}
_CONSTANTS: dict[str, Any] = {
    **{f"torch.{name}Storage": dtype for dtype, (name, _) in _KINDS.items()},
    **{str(dtype): dtype for dtype in _KINDS},
    "numpy.ndarray": None,
}
_NUMPY_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "multiarray.scalar": _scalar,
    "multiarray._reconstruct": _Array,
    "numeric._frombuffer": _array,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": as_dict,
    "dnnlib.util.EasyDict": as_dict,
    "builtins.set": as_set,
    "__builtin__.set": as_set,
    "_codecs.encode": _bytes,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent_object,
    "numpy.dtype": _NumpyType,
    **{f"numpy.core.{name}": function for name, function in _NUMPY_FUNCTIONS.items()},  # before numpy 2
    **{f"numpy._core.{name}": function for name, function in _NUMPY_FUNCTIONS.items()},
}
# Modules whose classes may have instances: they become Records, whatever they are called.
_CLASSES = ("torch.nn.modules.", "training.", "R3GAN.")


# Modules as their state dicts.


def _stored_tensors(module: Record) -> dict[str, StoredTensor]:
    """Parameters and persistent buffers of a module and all modules in it, as state_dict() would give them."""
    budget, found = Budget(), {}
    todo = [("", module, 0)]
    while todo:
        prefix, module, depth = todo.pop()
        parts = {name: module.state.get(name) or {} for name in ("_parameters", "_buffers", "_modules")}
        passing = module.state.get("_non_persistent_buffers_set") or set()
        if depth > _MAX_DEPTH or any(type(part) is not dict for part in parts.values()) or type(passing) is not set:
            raise Refused("it has a module that is none")
        for key, value in {**parts["_parameters"], **parts["_buffers"], **parts["_modules"]}.items():
            budget.spend(1)
            if type(key) is not str or len(key) > _MAX_KEY:
                raise Refused("it has a module whose parts have no names")
            if value is None or key in passing:
                continue
            if key in parts["_modules"] and isinstance(value, Record):
                todo.append((f"{prefix}{key}.", value, depth + 1))
            elif key not in parts["_modules"] and isinstance(value, StoredTensor):
                found[prefix + key] = value
            else:
                raise Refused("it has a module whose parts are no tensors")
    return found


def _plain(value: Any, levels: int = 3) -> Any:
    """`value` with None for all that is no number, no short text, and no short list or dictionary of such."""
    if value is None or type(value) in (bool, float):
        return value
    if type(value) is int and abs(value) < 2**63:
        return value
    if type(value) is str and len(value) <= _MAX_KEY:
        return value
    if levels and type(value) in (list, tuple, dict) and len(value) <= _MAX_ARGUMENTS:
        if type(value) is dict:
            return {key: _plain(item, levels - 1) for key, item in value.items() if type(key) is str}
        return [_plain(item, levels - 1) for item in value]
    return None
