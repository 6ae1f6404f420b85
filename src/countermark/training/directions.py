"""Directions in which a generator's code changes its pictures most, found without labels.

SeFa (Shen and Zhou 2021, arXiv:2007.06600) asks the weights of the layers that the code meets first, GANSpace
(Härkönen et al. 2020, arXiv:2004.02546) asks many codes: the principal components of w, or of the first layer's
outputs, carried back to z. The layers are found by running the generator, so this works for any network.

Deviations: SeFa's rows are not brought to equal length, as section 3.1 has it; the components are of NUM_CODES codes of
one class instead of a million, and a step along any direction is one standard deviation of codes along it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from countermark.core.errors import CountermarkError, UsageError
from countermark.nn.style import StyleGenerator
from countermark.training.trained import BATCH, Trained

METHODS = ("sefa", "ganspace")
NUM_CODES = 2000
_ROWS = 256  # of the transformation's matrix that are differentiated at once


def sefa(weight: Tensor, num: int) -> Tensor:
    """Unit directions [num,D] that weight [M,D] stretches most: eigenvectors of A^T A, greatest first (eq. 5)."""
    _, vectors = torch.linalg.eigh(weight.double().T @ weight.double())
    return _signed(vectors.flip(1)[:, :num].T)


def principal_components(x: Tensor, num: int) -> Tensor:
    """Unit directions [num,M] in which the rows of x [N,M] vary most, greatest first."""
    centred = x.double() - x.double().mean(0)
    return _signed(torch.linalg.svd(centred, full_matrices=False)[2][:num])


def ganspace(codes: Tensor, outputs: Tensor, num: int) -> Tensor:
    """Unit directions [num,D] of codes [N,D] that move the outputs [N,M] of a layer along their principal components.

    The codes are regressed on the components' coordinates (section 3.1, the equation of U).
    """
    centred = outputs.double() - outputs.double().mean(0)
    coordinates = centred @ principal_components(outputs, num).T
    return F.normalize(torch.linalg.lstsq(coordinates, codes.double()).solution)


def _signed(directions: Tensor) -> Tensor:
    """A direction and its opposite are equally good: the one whose greatest number is positive."""
    greatest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    return directions * greatest.sign()


class _Enough(Exception):
    """Raised inside a generator that has computed all that was asked."""


@contextmanager
def _listening(network: nn.Module, met: list[Tensor], limit: int | None) -> Iterator[None]:
    """While open, `met` gets the outputs of the innermost modules with weights that depend on the code.

    What follows them is cut off from the code, so that only the layers that it meets first are heard. A run ends by
    _Enough after `limit` outputs.
    """

    def listen(module: nn.Module, inputs: Any, output: Any) -> Tensor | None:
        if not isinstance(output, Tensor) or not output.requires_grad:
            return None
        met.append(output)
        if len(met) == limit:
            raise _Enough
        return output.detach().clone()

    weighted = [module for module in network.modules() if next(module.parameters(), None) is not None]
    hooks = [module.register_forward_hook(listen) for module in weighted]
    try:
        with suppress(_Enough):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def first_outputs(network: nn.Module, run: Callable[[], Any], limit: int | None = None) -> list[Tensor]:
    """The outputs of the layers with weights that meet first what requires a gradient in `run`, a call of the network.

    limit: of how many of them, in the order in which they run; the rest of the network is then left out.
    Raises CountermarkError when there is none.
    """
    met: list[Tensor] = []
    with _listening(network, met, limit):
        run()
    if not met:
        raise CountermarkError("no layer of this generator depends on its code; there are no directions to find")
    return met


def transformation(network: nn.Module, run: Callable[[Tensor], Any], num_dims: int) -> Tensor:
    """A [M,D]: the derivative of `first_outputs` in a shift [D] of the code, which `run` adds to it; at no shift."""
    shift = torch.zeros(num_dims, requires_grad=True)
    rows = []
    for output in first_outputs(network, lambda: run(shift)):
        flat = output.flatten()
        for part in torch.arange(len(flat)).split(_ROWS):
            chosen = F.one_hot(part, len(flat)).to(flat)
            rows.append(torch.autograd.grad(flat, shift, chosen, retain_graph=True, is_grads_batched=True)[0])
    return torch.cat(rows)


def find_directions(
    trained: Trained, method: str, num: int, *, c: Tensor | None = None, layers: Sequence[int] | None = None
) -> Tensor:
    """Directions in the space of `trained.codes`: [num,num_ws,w_dim] of a style-based generator, else [num,num_z].

    Adding one of them is a step of one standard deviation of codes along it. c: one-hot [1,num_classes], the class that
    is looked at, or None without classes. layers: those whose styles move, all if None.
    Raises UsageError for a method, a number or layers that there are not, and for layers where the code has none.
    """
    if method not in METHODS:
        raise UsageError(f"method: {method} is not known; choose {' or '.join(METHODS)}")
    G = trained.generator
    classes = None if c is None else [int(c.argmax())]
    codes = trained.codes(range(NUM_CODES), classes)
    mean, place = codes.mean(0, keepdim=True), _place(codes, layers)
    codes = codes[:, 0] if codes.ndim == 3 else codes
    num_dims = codes.shape[1]
    if not 0 < num <= num_dims:
        raise UsageError(f"num: {num} is not a number of directions from 1 to {num_dims}, the length of a code")
    if method == "sefa":
        found = sefa(transformation(G, lambda shift: trained.render(mean + shift * place, c), num_dims), num)
    elif isinstance(G, StyleGenerator):
        found = principal_components(codes, num)
    else:
        found = ganspace(codes, _first_layer(trained, codes, c), num)
    found = found.to(codes)
    steps = found * (codes @ found.T).std(0)[:, None]
    return steps[:, None] * place if place.ndim else steps


def _place(codes: Tensor, layers: Sequence[int] | None) -> Tensor:
    """Where in a code a direction [D] is laid: a mask [num_ws,1] for codes [N,num_ws,D], all of it for codes [N,D]."""
    if codes.ndim == 2:
        if layers is not None:
            raise UsageError("layers: the code of this generator has no layers; leave them out")
        return torch.ones(())
    num_ws = codes.shape[1]
    chosen = range(num_ws) if layers is None else layers
    if unknown := sorted(set(chosen) - set(range(num_ws))):
        raise UsageError(f"layers: {unknown[0]} is not one of this generator's layers 0-{num_ws - 1}")
    return torch.tensor([float(i in chosen) for i in range(num_ws)])[:, None]


def _first_layer(trained: Trained, codes: Tensor, c: Tensor | None) -> Tensor:
    """What the layer that z meets first gives for codes [N,num_z]: [N,M]."""
    parts = []
    for part in codes.split(BATCH):
        classes = None if c is None else c.expand(len(part), -1)
        run = partial(trained.render, part.clone().requires_grad_(), classes)
        parts.append(first_outputs(trained.generator, run, 1)[0].detach().flatten(1))
    return torch.cat(parts)
