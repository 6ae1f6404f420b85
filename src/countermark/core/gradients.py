"""Gradients in inputs alone, as penalties take them, and what can be differentiated twice for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

_INPUTS_ALONE: ContextVar[bool] = ContextVar("inputs_alone", default=False)


def weights_wanted() -> bool:
    """Whether a backward pass that runs now wants gradients in weights.

    torch knows it, but does not tell functions written in Python, which would compute them for nothing. Compiled code,
    in which there is no `input_gradient`, always does.
    """
    return torch.compiler.is_compiling() or not _INPUTS_ALONE.get()


@contextmanager
def _inputs_alone() -> Iterator[None]:
    token = _INPUTS_ALONE.set(True)
    try:
        yield
    finally:
        _INPUTS_ALONE.reset(token)


def input_gradient(y: Tensor, x: Tensor) -> Tensor:
    """d y.sum() / d x of x's shape, with a graph so that a loss can be built on it."""
    with _inputs_alone():
        return torch.autograd.grad(y.sum(), x, create_graph=True)[0]


_num_open = 0  # blocks of `second_derivatives`, of all parts of a batch: torch's stance is one for all threads
_stance: Any = None


@contextmanager
def second_derivatives() -> Iterator[None]:
    """Within it networks run as they are written, also those that are compiled: compiled code has first ones alone."""
    global _num_open, _stance
    if _num_open == 0:
        _stance = torch.compiler.set_stance("force_eager")
    _num_open += 1
    try:
        yield
    finally:
        _num_open -= 1
        if _num_open == 0:
            _stance.__exit__(None, None, None)


def differentiable(x: Tensor) -> Tensor:
    """x where gradients in it are wanted: x itself if a graph leads to it, else a constant that starts one."""
    return x if x.requires_grad else x.detach().requires_grad_()
