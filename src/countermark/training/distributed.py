"""One training in many processes, its ranks. Lightning Fabric starts them and names their devices; only here.

`launch` starts ranks here, or joins those that torchrun started. Every rank has its share of each batch
(core/shares.py) and the same weights; rank 0 alone writes. When a rank ends before its time the others end too, and one
line says so: the process that started them says it, under torchrun the rank that is first to.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

from countermark.core.errors import CountermarkError, UsageError

T = TypeVar("T")
MAX_DEVICES = 1024
# A rank that dies is noticed at once; this is how long the others wait for one that takes a snapshot.
PATIENCE = timedelta(days=1)
LOST = (
    "a process of this training was killed, or lost; the same command, with any number of devices, goes on from the "
    "last state"
)
_Worded = (CountermarkError, OSError, MemoryError)  # what the command line has one line for
# They report what has a line of ours. Set here, since a new process reads this file before it uses them.
for _name in (
    "lightning_fabric.utilities.rank_zero",
    "lightning_fabric.utilities.distributed",
    "torch.multiprocessing.spawn",
):
    logging.getLogger(_name).setLevel(logging.ERROR)


class _Lost(Exception):
    """This rank has lost another one, or was told to end because another one did."""


@contextmanager
def _exchanging() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # of gloo and NCCL
        raise _Lost from error


@dataclass(frozen=True)
class Ranks:
    """This process is number `rank` of `world`, and computes on `device`; alone unless `launch` says otherwise."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    fabric: Any = None

    def total(self, x: Tensor) -> Tensor:
        """The sum over the ranks of what each gives as x."""
        return x if self.world == 1 else self._reduce(x.clone(memory_format=torch.contiguous_format))

    def _reduce(self, x: Tensor) -> Tensor:
        """x itself, in which the sum is."""
        with _exchanging():
            torch.distributed.all_reduce(x)  # Fabric's own puts a barrier before each
        return x

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor]) -> None:
        """Put in the place of each tensor its mean over the ranks, in one exchange. They must be dense."""
        if self.world == 1 or not tensors:
            return
        flat = [tensor.as_strided((tensor.numel(),), (1,)) for tensor in tensors]  # as they lie in memory
        means = self._reduce(torch.cat(flat)).div_(self.world).split([len(values) for values in flat])
        torch._foreach_copy_(flat, list(means))

    def agreed(self, value: T) -> T:
        """Rank 0's value, whatever the others give."""
        if self.world == 1:
            return value
        with _exchanging():
            return self.fabric.broadcast(value)


def launch(work: Callable[[Ranks], T], devices: int = 1, accelerator: str = "cpu") -> T:
    """work(ranks) in `devices` processes, or in those that torchrun started; returns what it returns in rank 0.

    Under torchrun each process returns its own. With several devices `work` has to be picklable.
    Raises what a rank raises; UsageError for devices that there are not, and where Lightning Fabric is not installed;
    CountermarkError when a rank is lost.
    """
    if not 1 <= devices <= MAX_DEVICES:
        raise UsageError(f"devices: {devices} is not a number of processes from 1 to {MAX_DEVICES}")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        if devices > 1:
            raise UsageError(f"devices: torchrun has started the processes already; leave --devices {devices} out")
        return _join(_fabric(int(os.environ["LOCAL_WORLD_SIZE"]), accelerator, "popen"), work)
    if devices == 1 and accelerator == "cpu":
        return work(Ranks())
    return _start(_fabric(devices, accelerator, "spawn"), work)


def _fabric(devices: int, accelerator: str, start_method: Any) -> Any:
    """Fabric for `devices` processes on this machine, which is one of several where torchrun says so."""
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies import DDPStrategy
    except ImportError as error:
        remedy = "pip install 'countermark[distributed]'"
        raise UsageError(f"devices: many processes need Lightning Fabric; install it with: {remedy}") from error
    num_nodes = int(os.environ.get("GROUP_WORLD_SIZE", 1))
    strategy = DDPStrategy(start_method=start_method, timeout=PATIENCE)
    try:
        return Fabric(accelerator=accelerator, devices=devices, num_nodes=num_nodes, strategy=strategy)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"devices: {devices} of {accelerator} cannot be had ({reason}); choose others") from error


def _ranks(fabric: Any) -> Ranks:
    return Ranks(fabric.global_rank, fabric.world_size, fabric.device, fabric)


def _start(fabric: Any, work: Callable[[Ranks], T]) -> T:
    """Fabric's processes, watched from here: when one fails, the others are ended."""
    errors = multiprocessing.get_context("spawn").SimpleQueue()
    try:
        return fabric.launch(_started, work, errors)
    except torch.multiprocessing.ProcessExitedException as error:
        raise (CountermarkError(LOST) if errors.empty() else errors.get()) from error
    finally:
        for process in multiprocessing.active_children():
            process.terminate()


def _started(fabric: Any, work: Callable[[Ranks], T], errors: Any) -> T:
    """What a process that was started from here does: it leaves the words for its end to the one that started it."""
    try:
        return work(_ranks(fabric))
    except _Worded as error:
        errors.put(error)
    except _Lost:
        pass
    raise SystemExit(1)


def _join(fabric: Any, work: Callable[[Ranks], T]) -> T:
    """What a process that torchrun started does. Of those that fail the first raises; the others are silent."""
    fabric.launch()
    signal.signal(signal.SIGTERM, _told_to_end)
    try:
        return work(_ranks(fabric))
    except _Worded as own:
        error: BaseException = own
    except _Lost as lost:
        error = CountermarkError(LOST).with_traceback(lost.__traceback__)
    if _is_first():
        raise error
    raise SystemExit(1)


def _told_to_end(number: int, frame: Any) -> None:
    raise _Lost


def _is_first() -> bool:
    """Whether no other rank has failed before. The store is torchrun's, and outlives its processes."""
    try:
        return torch.distributed.distributed_c10d._get_default_store().add("countermark/failed", 1) == 1
    except RuntimeError:
        return False
