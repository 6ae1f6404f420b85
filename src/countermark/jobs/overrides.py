"""Settings typed on the command line: `batch=32 lr=1e-4 gamma=2:0.2@500000`."""

from __future__ import annotations

import dataclasses
import difflib
import math
import typing
from collections.abc import Sequence
from typing import Any

from countermark.core.errors import UsageError
from countermark.core.spec import Schedule, Settings
from countermark.core.text import named

# Whole numbers for which 0 means "none"; all others start at 1.
_MAY_BE_ZERO = ("num_classes",)
_LARGEST = 10**12


def apply(settings: Settings, words: Sequence[str]) -> Settings:
    """Settings with `name=value` words applied. `start:end@nimg` is a cosine Schedule.

    Raises UsageError for unknown names (with the nearest known one) and for values of another type or out of range.
    """
    hints = typing.get_type_hints(type(settings))
    changes: dict[str, Any] = {}
    for word in words:
        name, found, text = word.partition("=")
        if name == "cures":
            raise UsageError(f"setting: {word!r}: give --cures {text} in its place")
        if not found or name not in hints:
            near = difflib.get_close_matches(name, hints, 1)
            hint = f"did you mean {near[0]}?" if near else "known are " + ", ".join(hints)
            raise UsageError(f"setting: {word!r} is not NAME=VALUE with a known name; {hint}")
        try:
            changes[name] = _parse(name, text, hints[name])
        except (ValueError, KeyError, OverflowError) as error:
            example = f", as {value}" if (value := getattr(settings, name)) not in ("", None) else ""
            raise UsageError(
                f"setting: {name}={text!r} cannot be used; give {_wanted(hints[name])}{example}"
            ) from error
    changed = dataclasses.replace(settings, **changes)
    if changed.batch % changed.accumulate:
        raise UsageError(f"setting: batch={changed.batch} must be a multiple of accumulate={changed.accumulate}")
    return changed


def _parse(name: str, text: str, kind: Any) -> Any:
    """`text` as a value of the type `kind`. Raises ValueError, KeyError or OverflowError when it is none."""
    if kind is bool:
        return {"true": True, "false": False}[text.lower()]
    if kind is int:
        return _whole(text, 0 if name in _MAY_BE_ZERO else 1)
    if typing.get_origin(kind) is tuple:
        return tuple(_whole(part, 1) for part in text.split(","))
    if typing.get_origin(kind) is typing.Literal:
        return {option: option for option in typing.get_args(kind)}[text]
    if Schedule in typing.get_args(kind) and "@" in text:
        span, _, over = text.partition("@")
        start, _, end = span.partition(":")
        return Schedule(_finite(start), _finite(end), _whole(over, 1))
    return _finite(text)


def _whole(text: str, smallest: int) -> int:
    value = float(text)
    if not value.is_integer() or not smallest <= value <= _LARGEST:
        raise ValueError(text)
    return int(value)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise ValueError(text)
    return value


def _wanted(kind: Any) -> str:
    if kind is bool:
        return "true or false"
    if kind is int:
        return "a positive whole number"
    if typing.get_origin(kind) is tuple:
        return "positive whole numbers with commas"
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + named(filter(None, typing.get_args(kind)))
    schedule = ", or a schedule start:end@images" if Schedule in typing.get_args(kind) else ""
    return f"a number that is not negative{schedule}"
