"""Words that came from outside, made safe to show in a terminal."""

from __future__ import annotations


def printable(text: object) -> str:
    """`text` on one line with every control, format, surrogate and unassigned character written as an escape.

    Terminals act on escape sequences and bidirectional marks; a file's name or metadata must not steer them.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))


def named(names: object) -> str:
    """A list for an error's remedy: `a, b, c`."""
    return ", ".join(sorted(map(str, names)))  # type: ignore[call-overload]
