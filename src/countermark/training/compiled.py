"""torch.compile for the networks of a training: an option of how a run computes, no setting of the run.

A network's own pass is compiled, for each shape of batch it meets. What needs second derivatives, which compiled code
has not, runs as it is written (core/gradients.py, `second_derivatives`), and so do averages and everything that is
made of them.
"""

from __future__ import annotations

from collections.abc import Iterable

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
    for network in networks:
        if list(network.parameters()):
            network.compile(backend=backend, dynamic=False, options=OPTIONS.get(backend))
