"""What a cure is: a name and a number that are wrapped around a model's networks or phases; and the ways to wrap."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from countermark.core.spec import Phase, Scheduled, Settings, Spec, Step

Terms = Mapping[str, Tensor]
StepFunction = Callable[[Step], dict[str, Tensor]]


@dataclass(frozen=True)
class Case:
    """A model that a cure with a number is asked for. networks: its own, as shapes without memory."""

    spec: Spec
    settings: Settings
    networks: Mapping[str, nn.Module]
    number: Any

    @property
    def cures(self) -> set[str]:
        """The names of all cures: those asked for, and those that the model holds."""
        return {*self.spec.holds, *(word.partition("=")[0] for word in self.settings.cures)}


@dataclass(frozen=True)
class Cure:
    """A named addition to a model's training.

    number: what its number means; a cure whose `number` is "" takes none. default(settings): the number where the user
    gives none. apply(spec, number): the Spec with the cure in it. refuse(case): why it does not fit the model, "" where
    it does. The number is a Schedule or a float where `scheduled`, an int where `whole`, else a float; `most` at most.
    """

    name: str
    paper: str
    about: str
    number: str
    default: Callable[[Settings], Scheduled]
    apply: Callable[[Spec, Any], Spec]
    refuse: Callable[[Case], str] = lambda case: ""
    scheduled: bool = False
    whole: bool = False
    most: float = math.inf


def clips(case: Case) -> bool:
    """Whether something happens to weights after their steps."""
    return "clip_weights" in case.cures or any(phase.after for phase in case.spec.phases(case.settings))


def over_networks(spec: Spec, change: Callable[[dict[str, nn.Module], Settings], Mapping[str, nn.Module]]) -> Spec:
    """`spec` with the networks that `change(networks, settings)` returns added or put in place of its own."""

    def build(settings: Settings) -> dict[str, nn.Module]:
        networks = spec.build(settings)
        return {**networks, **change(networks, settings)}

    return dataclasses.replace(spec, build=build)


def over_phases(spec: Spec, change: Callable[[Phase], Phase], network: str = "") -> Spec:
    """`spec` with `change(phase)` in place of each phase, or of each of one network."""

    def phases(settings: Settings) -> tuple[Phase, ...]:
        return tuple(change(p) if network in ("", p.network) else p for p in spec.phases(settings))

    return dataclasses.replace(spec, phases=phases)


def over_steps(spec: Spec, change: Callable[[Step], Step], network: str = "") -> Spec:
    """`spec` whose phases in which D judges, or those of one network, see `change(step)` in place of their step."""

    def changed(phase: Phase) -> Phase:
        return dataclasses.replace(phase, function=lambda step: phase.function(change(step))) if phase.judged else phase

    return over_phases(spec, changed, network)


def over_terms(spec: Spec, network: str, change: Callable[[Step, Terms], Terms]) -> Spec:
    """`spec` whose adversarial phases of `network` return what `change(step, terms)` makes of their terms."""

    def changed(phase: Phase) -> Phase:
        def function(step: Step) -> dict[str, Tensor]:
            terms = phase.function(step)
            return {**terms, **change(step, terms)} if "logits_fake" in terms else terms

        return dataclasses.replace(phase, function=function)

    return over_phases(spec, changed, network)


def with_penalty(
    spec: Spec, network: str, name: str, penalty: Callable[[Step, Terms], Tensor], weight: Scheduled
) -> Spec:
    """`spec` that adds weight * mean(penalty(step, terms)) to the loss of `network`, and reports it as `name`."""

    def change(step: Step, terms: Terms) -> Terms:
        value = penalty(step, terms)
        return {"loss": terms["loss"] + step.at(weight) * value.mean(), name: value}

    return over_terms(spec, network, change)
