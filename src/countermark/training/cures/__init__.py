"""Cures of what ends GAN trainings, each wrapped around any model that it fits: `--cures pacgan=2,dragan`.

A cure takes a Spec and returns one with other networks or phases; the loop knows nothing of them. docs/cures.md has
the table of which cure is tested with which model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from countermark.core.errors import UsageError
from countermark.core.spec import Schedule, Scheduled, Settings, Spec
from countermark.core.text import named, printable
from countermark.training.cures import batch, gradients, objective, pace, pictures, unrolled, weights
from countermark.training.cures.cure import Cure

# In the order in which they are wrapped, whatever the user's: packs hold all that is judged, old pictures are packed as
# new ones are, weights are remembered of the D that there is in the end, and unrolling holds all of D.
CURES: tuple[Cure, ...] = (
    *objective.CURES,
    *gradients.CURES,
    *pictures.CURES,
    *weights.CURES,
    *batch.CURES,
    *pace.CURES,
    batch.PACKING,
    pictures.REPLAY,
    weights.HISTORY,
    unrolled.UNROLLING,
)
BY_NAME = {cure.name: cure for cure in CURES}


def cured(spec: Spec, settings: Settings) -> Spec:
    """`spec` with the cures of `settings.cures`. Raises UsageError for unknown ones, bad numbers, and misfits."""
    if not settings.cures:
        return spec
    numbers = dict(_parsed(settings.cures, settings))
    chosen = [cure for cure in CURES if cure.name in numbers]
    if spec.kind != "image":
        raise UsageError(f"cures: {spec.name} is no GAN; leave {named(numbers)} out")
    with torch.device("meta"):  # shapes alone
        networks = spec.build(settings)
    for cure in chosen:
        if why := cure.refuse(spec, settings, networks):
            raise UsageError(f"cures: {cure.name} does not fit {spec.name}: {why}; leave it out")
    for cure in chosen:
        spec = cure.apply(spec, numbers[cure.name])
    return spec


def _parsed(words: Iterable[str], settings: Settings) -> Iterable[tuple[str, Scheduled]]:
    seen: set[str] = set()
    for word in words:
        name, given, text = word.partition("=")
        if name not in BY_NAME:
            raise UsageError(f"cures: {printable(name)!r} is unknown; known are {named(BY_NAME)}")
        if name in seen:
            raise UsageError(f"cures: {name} is named twice; give it once")
        seen.add(name)
        yield name, _number(BY_NAME[name], text) if given else BY_NAME[name].default(settings)


def _number(cure: Cure, text: str) -> Scheduled:
    """`text` as the number of `cure`: whole, real and not negative, or a schedule START:END@IMAGES."""
    try:
        if cure.scheduled and "@" in text:
            span, _, over = text.partition("@")
            start, _, end = span.partition(":")
            return Schedule(_real(start), _real(end), _whole(over))
        return _whole(text) if cure.whole else _real(text)
    except (ValueError, OverflowError) as error:
        kind = "a positive whole number" if cure.whole else "a number that is not negative"
        kind += ", or a schedule start:end@images" if cure.scheduled else ""
        raise UsageError(
            f"cures: {cure.name}={printable(text)!r} cannot be used; give {kind} ({cure.number})"
        ) from error


def _real(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise ValueError(text)
    return value


def _whole(text: str) -> int:
    value = float(text)
    if not value.is_integer() or not 1 <= value <= 10**12:
        raise ValueError(text)
    return int(value)
