"""Checkpoints as the official programs write them, made here: our own stand-ins bear the names of their classes.

Weights, inputs and outputs are those of tests/golden. The source text that a persistent object carries is a trap: it
lays a file if anybody executes it.
"""

from __future__ import annotations

import io
import json
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

GOLDEN = Path(__file__).parent / "golden"
_FILTERS = {"Kernel", "resample_filter", "up_filter", "down_filter"}
BUFFERS = _FILTERS | {"w_avg", "noise_const", "transform", "freqs", "phases", "magnitude_ema"}


def golden(model: str) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor], dict[str, Any]]:
    """The official state dicts of G and D, inputs and outputs, and the constructor arguments."""
    with safe_open(GOLDEN / f"{model}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dictionary)
        config = json.loads(file.metadata()["config"])
    parts = {
        name: {key.removeprefix(f"{name}."): t for key, t in tensors.items() if key.startswith(f"{name}.")}
        for name in ("G", "D", "io")
    }
    return {"G": parts["G"], "D": parts["D"]}, parts["io"], config


def pth(state: Mapping[str, Tensor], *, zipped: bool = True) -> bytes:
    """What torch.save makes of a module's state dict, in the format since PyTorch 1.6 or in the one before."""
    whole = OrderedDict(state)
    whole._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    stream = io.BytesIO()
    torch.save(whole, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def pkl(networks: Mapping[str, nn.Module], *, protocol: int = pickle.DEFAULT_PROTOCOL, **facts: Any) -> bytes:
    """What the official training loops write: networks by name, and facts beside them."""
    data = sys.modules["dnnlib.util"].EasyDict(path="data.zip", xflip=False, max_size=None)
    return pickle.dumps({**networks, "training_set_kwargs": data, **facts}, protocol=protocol)


def adam_state(network: nn.Module) -> dict[str, Any]:
    """The state of an optimiser after a step, as R3GAN's snapshots hold it."""
    parameters = [nn.Parameter(p.clone()) for p in network.parameters()]
    optimiser = torch.optim.Adam(parameters, betas=(0.0, 0.9))
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    return optimiser.state_dict()


@contextmanager
def official_modules(trap: Path) -> Iterator[dict[str, types.ModuleType]]:
    """Modules with the official names, importable meanwhile; `trap` is what the embedded source text would write."""
    names = ("dnnlib", "dnnlib.util", "torch_utils", "torch_utils.persistence", "R3GAN", "R3GAN.Networks")
    modules = {name: types.ModuleType(name) for name in (*names, "training", "training.networks")}
    source = f"open({str(trap)!r}, 'w').write('the source text was executed')\n" * 20

    class EasyDict(dict):
        def __getattr__(self, name: str) -> Any:
            try:
                return self[name]
            except KeyError:
                raise AttributeError(name) from None

    def _reconstruct_persistent_obj(meta: dict) -> None:
        exec(meta["module_src"])

    class Part(nn.Module):
        DataType = torch.float32

        def __init__(self) -> None:
            super().__init__()
            self.DataType = torch.bfloat16

    class Network(Part):
        pass

    class Persistent(Part):
        def __init__(self, **arguments: Any) -> None:
            super().__init__()
            self._init_args = ()
            self._init_kwargs = EasyDict(arguments)
            self.weight_gain = 1 / np.sqrt(arguments.get("w_dim", 3))  # a numpy scalar
            self.size = np.broadcast_to(np.asarray(4), [2])

        def __reduce__(self) -> Any:
            meta = {"type": "class", "version": 6, "module_src": source, "class_name": "Generator"}
            return _reconstruct_persistent_obj, ({**meta, "state": dict(self.__dict__)},), None

    place(modules["dnnlib.util"], EasyDict)
    place(modules["torch_utils.persistence"], _reconstruct_persistent_obj)
    place(modules["R3GAN.Networks"], Part)
    place(modules["training.networks"], Network, Persistent)
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield modules
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def place(module: types.ModuleType, *things: Any) -> None:
    for thing in things:
        thing.__module__, thing.__qualname__ = module.__name__, thing.__name__
        setattr(module, thing.__name__, thing)


def tree(root: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """`root` with modules, parameters and buffers below it so that its state dict is `state`."""
    networks = sys.modules["training.networks"]
    part = networks.Persistent if isinstance(root, networks.Persistent) else sys.modules["R3GAN.Networks"].Part
    for key, tensor in state.items():
        *path, leaf = key.split(".")
        module = root
        for name, following in zip(path, [*path[1:], leaf], strict=True):
            if name not in module._modules:
                module.add_module(name, nn.ModuleList() if following.isdigit() else part())
            module = module._modules[name]  # type: ignore[assignment]
        if leaf in BUFFERS or not tensor.is_floating_point() or leaf.startswith("running"):
            module.register_buffer(leaf, tensor)
        else:
            module.register_parameter(leaf, nn.Parameter(tensor, requires_grad=False))
    return root
