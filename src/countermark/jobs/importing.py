"""`countermark import`: official checkpoints become runs, and nothing in them is executed."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from countermark.core.checkpoint import flat, save_state
from countermark.core.errors import CountermarkError, UsageError
from countermark.core.files import read_bounded, sha256_hex
from countermark.core.foreign import Network, read_checkpoint
from countermark.core.seeds import derive
from countermark.core.spec import Settings, Spec
from countermark.core.text import named, printable
from countermark.models import SPECS, find, is_file
from countermark.training.run import (
    MAX_NIMG,
    check_config,
    check_writable,
    document,
    locked,
    settings_from_json,
    settings_to_json,
    write_config,
)

MAX_FILE_BYTES = 8 * 2**30
MAX_FRESH_RATIO = 16  # parameters of a network that is in no file to G's: far above that of any pair of networks
# The network that a file holds, in its name, as the official scripts write it: netG_epoch_24, G_ema_best0, ..._D.
_ROLE = re.compile(r"(?<![a-z])(?:net_?)?([gd]|generator|discriminator)(_ema)?(?![a-z])")

StateDicts = dict[str, dict[str, Tensor]]


def import_run(
    files: Sequence[str | Path],
    *,
    model: str,
    out: str | Path,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Turn the official checkpoint of `model` in `files` into the run `out`, and return the run's state.

    The run's averages are G_ema, or G where there is none, and its networks G and D, or G_ema where there is no G. A
    checkpoint without D can be sampled; D then starts fresh in a training from this run. Training settings, which no
    checkpoint holds, are those of the preset of its size that is most like it. The run names the files and their sha256
    as its source; the weights keep the licence that they came with.
    Raises UsageError for a model without official checkpoints, for files whose network is unclear, without G, and for
    a folder that holds other things; CountermarkError for files that are damaged, of another model, or ask for more
    than data.
    """
    spec = find(model)
    if spec.from_official is None:
        known = named(spec.name for spec in SPECS if spec.from_official)
        raise UsageError(f"model: {spec.name} has no official checkpoints to import; choose {known}")
    found, source, nimg = _read(files)
    with _blaming(files, spec):
        fixed, states = _translate(spec, found)
        preset, settings = _complete(spec, fixed)
        groups, fresh = _networks(spec, settings, states)
    config = document(
        {
            "model": model if is_file(model) else spec.name,
            "preset": preset,
            "settings": settings_to_json(settings),
            "data": None,
            "source": source,
            "fresh": named(fresh),
        }
    )
    folder = Path(out)
    check_writable(folder)
    check_config(folder, config)
    with locked(folder):
        write_config(folder, config)
        state = save_state(folder, nimg, groups, {})
    say(f"{spec.name} at {settings.size} px with {named(found)}; the weights keep the licence that they came with")
    if fresh:
        say(f"{named(fresh)} is not in these files and starts fresh in a training from this run")
    return state


def _read(files: Sequence[str | Path]) -> tuple[dict[str, Network], list[dict[str, str]], int]:
    """The networks by name, the files' names and sha256, and the images shown (0 where no file says)."""
    if not files:
        raise UsageError("file: none given; give the checkpoint's files")
    networks: dict[str, Network] = {}
    source, nimg = [], 0
    for path in map(Path, files):
        data = read_bounded(path, MAX_FILE_BYTES)
        source.append({"name": path.name, "sha256": sha256_hex(data)})
        read = read_checkpoint(data, str(path))
        for name, network in read.networks.items():
            role = name or _role(path, alone=len(files) == 1)
            if role in networks:
                raise UsageError(f"file: {path} holds {role}, which another file holds too; give each network once")
            networks[role] = network
        shown = read.facts.get("cur_nimg")
        nimg = shown if type(shown) is int and 0 <= shown <= MAX_NIMG else nimg
    if not {"G", "G_ema"} & set(networks):
        raise UsageError(f"file: there is no G in {named(source_file['name'] for source_file in source)}; add its file")
    networks.setdefault("G", networks.get("G_ema"))  # type: ignore[arg-type]  # one of the two is there
    return networks, source, nimg


def _role(path: Path, *, alone: bool) -> str:
    """The network in a file that is a state dict, by the file's name."""
    matches = _ROLE.findall(path.stem.lower())
    if not matches and not alone:
        raise UsageError(f"file: {path} does not say which network it holds; put G, D or G_ema into its name")
    role, average = matches[-1] if matches else ("g", "")
    return role[0].upper().replace("G", "G_ema" if average else "G")


@contextmanager
def _blaming(files: Sequence[str | Path], spec: Spec) -> Iterator[None]:
    """What does not fit is the files' fault, or that of the model that was named."""
    try:
        yield
    except CountermarkError as error:
        raise CountermarkError(
            f"{named(files)}: no official networks of {spec.name} ({error}); give the model that the files are of"
        ) from error


def _translate(spec: Spec, found: Mapping[str, Network]) -> tuple[dict[str, Any], StateDicts]:
    assert spec.from_official is not None
    arguments = {name: network.arguments for name, network in found.items()}
    tensors = {name: network.tensors for name, network in found.items()}
    try:
        return spec.from_official(arguments, tensors)
    except KeyError as error:
        raise CountermarkError(f"there is no {printable(str(error)[:200])}") from error
    except (IndexError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError) as error:
        raise CountermarkError("the layers have other names or shapes") from error


def _complete(spec: Spec, fixed: Mapping[str, Any]) -> tuple[str, Settings]:
    """The preset of the checkpoint's size, and its settings with those that the checkpoint, a stranger's, fixes."""
    try:
        preset = _nearest(spec, fixed)
        known = spec.presets[preset]
        return preset, settings_from_json(type(known), {**settings_to_json(known), **fixed})
    except TypeError as error:
        raise CountermarkError(printable(error)) from error


def _nearest(spec: Spec, fixed: Mapping[str, Any]) -> str:
    """The preset of the checkpoint's size that has most of its shape, so that it is trained on as its kind is."""
    shared = {
        name: sum(getattr(preset, field, None) == value for field, value in fixed.items())
        for name, preset in spec.presets.items()
        if preset.size == fixed["size"]
    }
    return max(shared, key=shared.__getitem__) if shared else spec.fitting_preset(fixed["size"], fixed["channels"])


def _networks(spec: Spec, settings: Settings, states: StateDicts) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """The groups of a state, and which networks are in no file. Shapes are compared before any memory is claimed."""
    with torch.device("meta"):
        shells = _build(spec, settings)
    for name, state in states.items():
        _check(name, state, shells[name.removesuffix("_ema")])
    sizes = {name: sum(p.numel() for p in network.parameters()) for name, network in shells.items()}
    fresh = [name for name, size in sizes.items() if size and name not in states]
    if any(sizes[name] > MAX_FRESH_RATIO * sizes["G"] for name in fresh):
        raise CountermarkError(f"{named(fresh)} is in no file, and would be far larger than G")
    torch.manual_seed(derive(0, "init"))
    networks = _build(spec, settings)
    for name, network in networks.items():
        network.load_state_dict(states.get(name, network.state_dict()))
    averages = {name: copy.deepcopy(networks[name]) for name in spec.averaged}
    for name, network in averages.items():
        network.load_state_dict(states.get(f"{name}_ema", network.state_dict()))
    groups = {"networks": networks, "averages": averages}
    return {key: flat({n: net.state_dict() for n, net in group.items()}) for key, group in groups.items()}, fresh


def _build(spec: Spec, settings: Settings) -> dict[str, nn.Module]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of layers without weights, which the comparison of shapes refuses
            return spec.build(settings)
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        reason = printable(str(error).partition("\n")[0])
        raise CountermarkError(reason) from error


def _check(name: str, state: Mapping[str, Tensor], shell: nn.Module) -> None:
    """Raises CountermarkError when the state dict is of another network than `shell`."""
    expected = shell.state_dict()
    for key in sorted(expected.keys() | state.keys()):
        if key not in expected:
            raise CountermarkError(f"{name} holds {printable(key)}, which this network has not")
        if key not in state and not key.endswith("num_batches_tracked"):  # PyTorch before 0.4.1 did not count them
            raise CountermarkError(f"{name} holds no {key}, which this network has")
        if key in state and state[key].shape != expected[key].shape:
            shapes = f"{list(state[key].shape)}, not {list(expected[key].shape)}"
            raise CountermarkError(f"{name} is not of the shape that its file says: {key} is {shapes}")
