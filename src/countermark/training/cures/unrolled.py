"""Unrolled GANs: G learns against the D that answers it some steps later (Metz et al. 2017, arXiv:1611.02163).

In G's step D takes K steps of its own on copies of its weights (eq. 7), with its own losses and its own optimiser's
rule from where its moments stand, and G's loss is taken of the last (eq. 9). Gradients flow back through those steps
into G's pictures, so that G feels how D would answer. D itself does not move.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from countermark.core.gradients import second_derivatives
from countermark.core.shares import mean
from countermark.core.spec import SGD, Adam, Phase, RMSprop, Settings, Spec, Step
from countermark.training.cures.cure import Case, Cure, clips

_TINY = 1e-16  # inside roots: their derivative at zero is not finite

Rule = Callable[[Tensor, Tensor, dict], tuple[Tensor, dict]]


class Stateless:
    """D with other weights, which its own do not follow; running statistics move on a copy."""

    def __init__(self, D: nn.Module) -> None:
        self.D = D
        self.weights = {name: weight.detach().clone().requires_grad_() for name, weight in D.named_parameters()}
        self.buffers = {name: buffer.detach().clone() for name, buffer in D.named_buffers()}

    def parameters(self) -> Iterable[Tensor]:
        return self.weights.values()

    def __call__(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        return functional_call(self.D, (self.weights, self.buffers), (x, c))


def _moments(optimiser: torch.optim.Optimizer, D: nn.Module) -> dict[str, Any]:
    """Each weight's state in the optimiser, by name: nothing where it has taken no step yet."""
    state = optimiser.state
    return {name: {k: v for k, v in state.get(p, {}).items() if v is not None} for name, p in D.named_parameters()}


def adam(options: Mapping[str, Any]) -> Rule:
    """(weight, gradient, moments) to the weight and moments after a step (arXiv:1412.6980, algorithm 1)."""
    lr, (beta1, beta2) = options["lr"], options["betas"]

    def step(weight: Tensor, gradient: Tensor, state: dict) -> tuple[Tensor, dict]:
        num = float(state.get("step", 0.0)) + 1
        first = torch.lerp(gradient, state.get("exp_avg", torch.zeros_like(gradient)), beta1)
        second = torch.lerp(gradient.square(), state.get("exp_avg_sq", torch.zeros_like(gradient)), beta2)
        root = (second / (1 - beta2**num) + _TINY).sqrt() + options["eps"]
        return weight - lr / (1 - beta1**num) * first / root, {"step": num, "exp_avg": first, "exp_avg_sq": second}

    return step


def sgd(options: Mapping[str, Any]) -> Rule:
    """(weight, gradient, moments) to the weight and moments after a step with momentum."""

    def step(weight: Tensor, gradient: Tensor, state: dict) -> tuple[Tensor, dict]:
        velocity = gradient + options["momentum"] * state.get("momentum_buffer", torch.zeros_like(gradient))
        return weight - options["lr"] * velocity, {"momentum_buffer": velocity}

    return step


def rmsprop(options: Mapping[str, Any]) -> Rule:
    """(weight, gradient, moments) to the weight and moments after a step."""

    def step(weight: Tensor, gradient: Tensor, state: dict) -> tuple[Tensor, dict]:
        square = torch.lerp(gradient.square(), state.get("square_avg", torch.zeros_like(gradient)), options["alpha"])
        return weight - options["lr"] * gradient / ((square + _TINY).sqrt() + options["eps"]), {"square_avg": square}

    return step


RULES: Mapping[type, Callable[[Mapping[str, Any]], Rule]] = {Adam: adam, SGD: sgd, RMSprop: rmsprop}


def _ahead(step: Step, phases: tuple[Phase, ...], num: int) -> Step:
    """`step` with the D that comes after `num` of its steps."""
    D = Stateless(step.networks["D"])
    # What D remembers (running means, old pictures) it remembers of its own steps alone.
    remembering = {name: copy.deepcopy(net) for name, net in step.networks.items() if not list(net.parameters())}
    networks: Any = {**step.networks, **remembering, "D": D}
    ahead = dataclasses.replace(step, networks=networks)
    optimisers = {phase.optimiser: step.optimisers["D", phase.optimiser] for phase in phases}
    states = {recipe: _moments(optimiser, step.networks["D"]) for recipe, optimiser in optimisers.items()}
    for _ in range(num):
        for phase in phases:
            loss = phase.function(ahead)["loss"]
            names, weights = zip(*D.weights.items(), strict=True)
            gradients = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
            rule = RULES[type(phase.optimiser)](optimisers[phase.optimiser].param_groups[0])  # at the rates of now
            state = states[phase.optimiser]
            for name, weight, gradient in zip(names, weights, gradients, strict=True):
                if gradient is not None:
                    D.weights[name], state[name] = rule(weight, mean(gradient), state[name])
    return ahead


def _unrolled(spec: Spec, num: int) -> Spec:
    def phases(settings: Settings) -> tuple[Phase, ...]:
        own = spec.phases(settings)
        # D's lazy regularisers are rare, and left out.
        answers = tuple(phase for phase in own if phase.network == "D" and phase.interval == 1)

        def changed(phase: Phase) -> Phase:
            def function(step: Step) -> dict[str, Tensor]:
                with second_derivatives():
                    return phase.function(_ahead(step, answers, num))

            return dataclasses.replace(phase, function=function)

        return tuple(changed(phase) if phase.network == "G" and phase.judged else phase for phase in own)

    return dataclasses.replace(spec, phases=phases)


def _bound(case: Case) -> str:
    if clips(case):
        return "D's weights are clipped after each step, through which there is no gradient"
    return "D's frozen layers would move in its steps ahead" if "freeze_d" in case.cures else ""


UNROLLING = Cure(
    "unrolled",
    "arXiv:1611.02163",
    "G learns against the D that would answer it",
    "steps of D",
    lambda settings: 5,
    _unrolled,
    _bound,
    whole=True,
    most=100,
)
