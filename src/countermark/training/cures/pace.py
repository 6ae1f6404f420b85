"""Cures in how fast the players learn: two time scales, critic steps, gradient clipping, frozen layers (FreezeD)."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from countermark.core.spec import Phase, Spec, Step
from countermark.training.cures.cure import Case, Cure, clips, over_phases


def _ttur(spec: Spec, factor: float) -> Spec:
    def faster(phase: Phase) -> Phase:
        optimiser = phase.optimiser
        return dataclasses.replace(phase, optimiser=dataclasses.replace(optimiser, lr=optimiser.lr * factor))

    return over_phases(spec, faster, "D")


def _critic_steps(spec: Spec, number: int) -> Spec:
    def rarer(phase: Phase) -> Phase:
        return dataclasses.replace(phase, interval=phase.interval * number)

    return over_phases(spec, rarer, "G")


def _clip_gradients(spec: Spec, bound: float) -> Spec:
    return over_phases(spec, lambda phase: dataclasses.replace(phase, clip_grad_norm=bound))


def _is_layer(module: nn.Module) -> bool:
    """Whether a module has weights of its own, itself or through a parametrisation."""
    own = bool(list(module.parameters(recurse=False))) and not isinstance(module, ParametrizationList)
    return own or is_parametrized(module)


def frozen_layers(D: nn.Module, x: Tensor, c: Tensor | None, num: int) -> list[nn.Module]:
    """D's layers whose input has one of its `num` largest sides, from the first on (arXiv:2002.10964, section 3.1).

    x [N,C,S,S], c: pictures and classes to show it, which change nothing in it.
    """
    layers: list[tuple[int, nn.Module]] = []
    handles = [
        module.register_forward_pre_hook(
            lambda module, inputs: layers.append((inputs[0].shape[-1] if inputs[0].ndim == 4 else 0, module))
        )
        for module in D.modules()
        if _is_layer(module)
    ]
    training = D.training
    try:
        with torch.no_grad():
            D.eval()(x, c)
    finally:
        D.train(training)
        for handle in handles:
            handle.remove()
    sides = sorted({side for side, _ in layers if side}, reverse=True)[:-1][:num]  # what judges last always learns
    return [module for side, module in layers if side in sides]


def _sideless(case: Case) -> str:
    if clips(case):
        return "D's weights are clipped after each step, frozen or not"
    D, settings = case.networks["D"], case.settings
    like = next(D.parameters())
    x = like.new_zeros(1, settings.channels, settings.size, settings.size)
    c = like.new_zeros(1, settings.num_classes) if settings.num_classes else None
    return "" if frozen_layers(D, x, c, 1) else "its D has no layers of several sides, of which some could be frozen"


def _freeze_d(spec: Spec, number: int) -> Spec:
    def changed(phase: Phase) -> Phase:
        frozen: dict[nn.Module, list[nn.Module]] = {}

        def function(step: Step) -> dict[str, Tensor]:
            D, c = step.networks["D"], None if step.c is None else step.c[:1]
            if isinstance(D, nn.Module):  # not where its steps are unrolled
                if D not in frozen:
                    frozen[D] = frozen_layers(D, step.x[:1], c, number)
                for layer in frozen[D]:
                    layer.requires_grad_(False)
            return phase.function(step)

        return dataclasses.replace(phase, function=function)

    return over_phases(spec, changed, "D")


CURES = (
    Cure(
        "ttur",
        "arXiv:1706.08500",
        "D learns at a rate of its own",
        "D's rate over that of the preset",
        lambda settings: 2.0,
        _ttur,
    ),
    Cure(
        "critic_steps",
        "arXiv:1701.07875",
        "D takes several steps to one of G",
        "steps",
        lambda settings: 5,
        _critic_steps,
        whole=True,
        most=1000,
    ),
    Cure(
        "clip_gradients",
        "arXiv:1211.5063",
        "the norm of every step's gradient is bounded",
        "bound",
        lambda settings: 1.0,
        _clip_gradients,
    ),
    Cure(
        "freeze_d",
        "arXiv:2002.10964",
        "D's lower layers stay as they are: with --from, on small sets",
        "how many of the largest sides",
        lambda settings: 2,
        _freeze_d,
        _sideless,
        whole=True,
        most=16,
    ),
)
