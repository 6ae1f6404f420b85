"""Checkpoints in all official formats come back tensor by tensor; their source text is never executed."""

import io
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from countermark.core.errors import CountermarkError
from countermark.core.foreign import Checkpoint, read_checkpoint
from tests import malice
from tests.official import adam_state, golden, official_modules, pkl, pth, tree

EVERY_DTYPE = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)


def equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(tensor, expected[key]) and tensor.dtype == expected[key].dtype for key, tensor in found.items()
    )


@pytest.mark.parametrize("zipped", [True, False], ids=["since 1.6", "before 1.6"])
def test_state_dicts(zipped: bool) -> None:
    states, _, _ = golden("dcgan")
    checkpoint = read_checkpoint(pth(states["G"], zipped=zipped), "netG.pth")
    assert checkpoint.networks.keys() == {""}
    assert equal(checkpoint.networks[""].tensors, states["G"])
    assert checkpoint.networks[""].arguments == {}


@pytest.mark.parametrize("zipped", [True, False], ids=["since 1.6", "before 1.6"])
def test_views_dtypes_and_empty_tensors(zipped: bool) -> None:
    whole = torch.arange(24.0)
    state = {
        "columns": whole.view(4, 6)[:, 2:4],
        "transposed": whole.view(4, 6).T,
        "every second": whole[3::2],
        "alone": whole[5],
        "empty": torch.empty(0, 3),
        **{str(dtype): torch.tensor([0, 1, 1]).to(dtype) for dtype in EVERY_DTYPE},
    }
    assert equal(read_checkpoint(pth(state, zipped=zipped), "views.pth").networks[""].tensors, state)


def test_tensors_of_the_first_pytorch() -> None:
    numbers = torch.arange(6.0)
    parts = (malice.reference(6), b"K\x01", b"K\x02K\x02\x86", b"K\x02K\x01\x86")
    value = malice.state_dict(malice.call("torch._utils._rebuild_tensor", *parts))
    data = malice.legacy(value, ["0"], [(6, numbers.numpy().tobytes())])
    tensors = read_checkpoint(data, "old.pth").networks[""].tensors
    assert equal(tensors, {"main.0.weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]])})


def test_a_byte_that_is_no_bool_becomes_one() -> None:
    state = {"a": torch.tensor([True, False, True])}
    data = pth(state, zipped=False)
    strange = data[:-3] + b"\x07\x00\xff"
    assert equal(read_checkpoint(strange, "a.pth").networks[""].tensors, state)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", ["Network", "Persistent"])
def test_nvidia_s_pickles(kind: str, protocol: int, tmp_path: Path) -> None:
    states, _, config = golden("r3gan")
    with official_modules(tmp_path / "trap") as modules:
        made = getattr(modules["training.networks"], kind)
        networks = {name: tree(made(**config[name] if kind == "Persistent" else {}), states[name]) for name in "GD"}
        facts = {"cur_nimg": 12_345, "G_opt_state": adam_state(networks["G"]), "augment_pipe": None}
        data = pkl({**networks, "G_ema": networks["G"]}, protocol=protocol, **facts)
        assert (kind == "Persistent") == (b"the source text was executed" in data)
    checkpoint = read_checkpoint(data, "network-snapshot.pkl")
    assert checkpoint.networks.keys() == {"G", "D", "G_ema"}
    for name in "GD":
        assert equal(checkpoint.networks[name].tensors, states[name])
        assert checkpoint.networks[name].arguments == (config[name] if kind == "Persistent" else {})
    assert equal(checkpoint.networks["G_ema"].tensors, states["G"])
    assert checkpoint.facts["cur_nimg"] == 12_345
    assert checkpoint.facts["training_set_kwargs"] == {"path": "data.zip", "xflip": False, "max_size": None}
    assert not (tmp_path / "trap").exists()


def test_the_trap_is_a_real_one(tmp_path: Path) -> None:
    with official_modules(tmp_path / "trap") as modules:
        pickle.loads(pkl({"G": modules["training.networks"].Persistent()}))
    assert (tmp_path / "trap").exists()


def test_modules_of_torch_and_buffers_that_are_not_kept(tmp_path: Path) -> None:
    with official_modules(tmp_path / "trap") as modules:
        G = modules["training.networks"].Network()
        G.layers = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ModuleList([nn.Linear(4, 5)]))
        G.register_buffer("kept", torch.ones(2))
        G.register_buffer("left", torch.ones(3), persistent=False)
        G.nothing = None
        expected = G.state_dict()
        data = pickle.dumps({"G": G})
    assert equal(read_checkpoint(data, "G.pkl").networks["G"].tensors, expected)
    assert "left" not in expected


def numbers(value: Any, protocol: int) -> Any:
    return read_checkpoint(pickle.dumps({"value": value}, protocol=protocol), "numbers.pkl").facts["value"]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_numpy_s_numbers(protocol: int) -> None:
    for code in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "b1"):
        value = np.array(1.5).astype(code)[()]
        assert numbers(value, protocol) == value.item()
        assert type(numbers(value, protocol)) is type(value.item())
    with pytest.raises(CountermarkError, match="no plain number"):
        numbers(np.complex64(1), protocol)
    with pytest.raises(CountermarkError, match="byte order"):
        numbers(np.arange(3).astype(">f8"), protocol)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("order", ["C", "F"])
def test_numpy_s_arrays_are_tensors(order: str, protocol: int) -> None:
    array = np.asarray(np.arange(24, dtype=np.float32).reshape(2, 3, 4), order=order)  # type: ignore[call-overload]
    checkpoint = read_checkpoint(pickle.dumps({"a": array, "b": np.arange(3)}, protocol=protocol), "arrays.pkl")
    assert np.array_equal(checkpoint.networks[""].tensors["a"], array)
    assert checkpoint.networks[""].tensors["b"].tolist() == [0, 1, 2]


def test_only_plain_arguments_are_passed_on(tmp_path: Path) -> None:
    arguments = {
        "width": 3,
        "nested": {"widths": [1, (2.5, None)], "deep": {"er": {"st": 1}}},
        "tensor": torch.zeros(2),
        "long": "x" * 1000,
        "many": list(range(1000)),
        "huge": 2**80,
        "dtype": torch.float16,
    }
    with official_modules(tmp_path / "trap") as modules:
        data = pkl({"G": modules["training.networks"].Persistent(**arguments)})
    found = read_checkpoint(data, "G.pkl").networks["G"].arguments
    assert found == {
        "width": 3,
        "nested": {"widths": [1, None], "deep": {"er": None}},
        **dict.fromkeys(("tensor", "long", "many", "huge", "dtype")),
    }


def test_damaged_files_are_refused_in_one_line(tmp_path: Path) -> None:
    num = 0
    for name, data in malice.damage(tmp_path / "trap"):
        line = malice.refusal(partial(read_checkpoint, data, "damaged.pth"))
        assert line.startswith("damaged.pth: cannot be imported: it "), name
        assert line.isprintable(), name
        num += 1
    assert num > 55
    assert not (tmp_path / "trap").exists()


def test_whole_modules_are_refused_where_their_class_is_anybody_s() -> None:
    stream = io.BytesIO()
    torch.save(malice.Reduced(Checkpoint, {}, {}), stream)
    with pytest.raises(CountermarkError, match=r"asks for countermark\.core\.foreign\.Checkpoint"):
        read_checkpoint(stream.getvalue(), "G.pth")


def test_what_nobody_asks_for_is_not_copied() -> None:
    """An optimiser's state is twice as large as its network."""
    networks = {"G": {"w": torch.zeros(10)}, "G_opt_state": {"state": {0: {"exp_avg": torch.zeros(10)}}}}
    stream = io.BytesIO()
    torch.save(networks, stream)
    checkpoint = read_checkpoint(stream.getvalue(), "both.pth")
    assert checkpoint.networks.keys() == {"G"}
    assert checkpoint.facts["G_opt_state"] == {"state": {}}
