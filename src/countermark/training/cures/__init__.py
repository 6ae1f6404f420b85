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
from countermark.training.cures.cure import Case, Cure

# In the order in which they are wrapped, whatever the user's: noise is on all that D sees, packs hold all that is
# judged, old pictures are packed as new ones are, weights are remembered of the D that there is in the end, and
# unrolling holds all of D.
CURES: tuple[Cure, ...] = (
    *objective.CURES,
    *gradients.CURES,
    *pictures.CURES,
    *weights.CURES,
    *batch.CURES,
    *pace.CURES,
    pictures.INSTANCE_NOISE,
    batch.PACKING,
    pictures.REPLAY,
    weights.HISTORY,
    unrolled.UNROLLING,
)
MAX_NIMG = 10**12  # that a schedule may last
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
        if why := _misfit(cure, Case(spec, settings, networks, numbers[cure.name])):
            raise UsageError(f"cures: {cure.name} does not fit {spec.name}: {why}; leave it out")
    for cure in chosen:
        spec = cure.apply(spec, numbers[cure.name])
    return spec


def _misfit(cure: Cure, case: Case) -> str:
    if cure.name not in case.spec.holds:
        return cure.refuse(case)
    setting = case.spec.holds[cure.name]
    return "it has it of its own" + (f", with the setting {setting}=" if setting else "")


def _parsed(words: Iterable[str], settings: Settings) -> Iterable[tuple[str, Scheduled]]:
    seen: set[str] = set()
    for word in words:
        name, given, text = word.partition("=")
        if name not in BY_NAME:
            raise UsageError(f"cures: {printable(name)!r} is unknown; known are {named(BY_NAME)}")
        if name in seen:
            raise UsageError(f"cures: {name} is named twice; give it once")
        seen.add(name)
        cure = BY_NAME[name]
        if given and not cure.number:
            raise UsageError(f"cures: {printable(word)!r}: {name} takes no number; leave it out")
        yield name, _number(cure, text) if given else cure.default(settings)


def _number(cure: Cure, text: str) -> Scheduled:
    """`text` as the number of `cure`: whole, real and not negative, or a schedule START:END@IMAGES."""
    try:
        if cure.scheduled and "@" in text:
            span, _, over = text.partition("@")
            start, _, end = span.partition(":")
            return Schedule(_real(start, cure.most), _real(end, cure.most), _whole(over, MAX_NIMG))
        return _whole(text, cure.most) if cure.whole else _real(text, cure.most)
    except (ValueError, OverflowError) as error:
        kind = "a positive whole number" if cure.whole else "a number that is not negative"
        kind += f" and at most {cure.most:g}" if cure.most < math.inf else ""
        kind += ", or a schedule start:end@images" if cure.scheduled else ""
        raise UsageError(
            f"cures: {cure.name}={printable(text)!r} cannot be used; give {kind} ({cure.number})"
        ) from error


def _real(text: str, most: float) -> float:
    value = float(text)
    if not math.isfinite(value) or not 0 <= value <= most:
        raise ValueError(text)
    return value


def _whole(text: str, most: float) -> int:
    value = float(text)
    if not value.is_integer() or not 1 <= value <= most:
        raise ValueError(text)
    return int(value)
