"""Settings typed on the command line: `batch=32 lr=1e-4 gamma=2:0.2@500000`."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any

from countermark.core.errors import UsageError
from countermark.core.spec import Schedule, Settings


def apply(settings: Settings, words: Sequence[str]) -> Settings:
    """Settings with `name=value` words applied. `start:end@nimg` is a cosine Schedule.

    Raises UsageError for unknown names (with the nearest known one) and for values of another type.
    """
    changes: dict[str, Any] = {}
    for word in words:
        name, found, text = word.partition("=")
        known = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
        if not found or name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else "known are " + ", ".join(known)
            raise UsageError(f"setting: {word!r} is not NAME=VALUE with a known name; {hint}")
        changes[name] = _parse(name, text, known[name])
    changed = dataclasses.replace(settings, **changes)
    if changed.batch < 1 or changed.accumulate < 1 or changed.batch % changed.accumulate:
        raise UsageError(
            f"setting: batch={changed.batch} must be a positive multiple of accumulate={changed.accumulate}"
        )
    return changed


def _parse(name: str, text: str, old: object) -> object:
    try:
        if isinstance(old, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(old, str):
            return text
        if isinstance(old, tuple):
            return tuple(type(old[0])(part) for part in text.split(","))
        if isinstance(old, int) and not text.count("@"):
            return int(float(text)) if float(text).is_integer() else float(text)
        if "@" in text:
            span, _, over = text.partition("@")
            start, _, end = span.partition(":")
            return Schedule(float(start), float(end), int(float(over)))
        return float(text)
    except (ValueError, KeyError, IndexError, OverflowError) as error:
        raise UsageError(
            f"setting: {name}={text!r} is not a value like {old!r}; schedules are start:end@images"
        ) from error
