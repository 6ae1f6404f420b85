"""torch.compile for the networks of a training: an option of how a run computes, no setting of the run.

A network's own pass is compiled, for each shape of batch it meets. What needs second derivatives, which compiled code
has not, runs as it is written (core/gradients.py, `second_derivatives`), and so do averages and everything that is
made of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from countermark.core.errors import UsageError

# For each network: shapes of batches, learning or not, in training or not. torch's own limit is lower, and beyond it
# what is new runs as it is written.
NUM_VARIANTS = 64
OPTIONS = {"inductor": {"fallback_random": True}}  # the same random numbers as uncompiled code


def check_compiler(device: torch.device) -> None:
    """Raises UsageError where torch cannot compile for the device: there is no C++ compiler, say."""
    try:
        torch.compile(torch.cos)(torch.ones(8, device=device))
    except Exception as error:  # of dynamo, of the compiler that it starts, of the system
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"compile: torch.compile does not work here ({reason}); install a C++ compiler, or leave --compile out"
        ) from error


def compile_networks(networks: Iterable[nn.Module], backend: str = "inductor") -> None:
    """Compile the passes of those that have weights, at their first call. backend: torch.compile's."""
    torch._dynamo.config.recompile_limit = NUM_VARIANTS
    torch._functorch.config.backward_pass_autocast = "off"  # as uncompiled: no autocast around backward passes
    for network in networks:
        if list(network.parameters()):
            network.compile(backend=backend, dynamic=False, options=OPTIONS.get(backend))


@contextmanager
def compiling() -> Iterator[None]:
    """Around a training of compiled networks: raises UsageError where one turns out not to be compilable."""
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = " ".join(str(error).splitlines()[:2]) or type(error).__name__  # "... raised:", and what
        raise UsageError(f"compile: a network cannot be compiled ({reason}); leave --compile out") from error
    except RuntimeError as error:
        if "double backward" not in str(error):
            raise
        raise UsageError(
            "compile: a gradient is taken of a gradient of a compiled network; compute what it is taken of within "
            "second_derivatives() of core/gradients.py, or leave --compile out"
        ) from error
