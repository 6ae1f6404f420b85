"""What several commands ask for and print: options, lists of numbers, help on runs and sources."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

from countermark.core.text import printable

RUN_HELP = "a run folder or a trained model that ships, as MODEL@SET (see: countermark models)"
PACKAGED_HELP = "digits, mnist5k, avatars, emoji, faces64"
SOURCE_HELP = f"a folder, a zip, tar shards ('shards/{{000..099}}.tar'), or a packaged set ({PACKAGED_HELP})"


def add_command(commands: Any, name: str, run: Callable[[argparse.Namespace], Any], text: str, example: str) -> Any:
    command = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=f"example:\n  countermark {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    return command


def show(found: Any, as_json: bool, lines: Iterable[str]) -> None:
    """What a command found: as one JSON document and nothing else, or in lines for people."""
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=True))
        return
    for line in lines:
        print(printable(line))


def numbers(text: str) -> list[int]:
    """'0-3,7' as [0, 1, 2, 3, 7]."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        try:
            low, high = int(first), int(last) if dash else int(first)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a list like 0-63 or 1,5,9") from None
        if not 0 <= low <= high < 2**62 or high - low >= 10**6:
            raise argparse.ArgumentTypeError(f"{part!r} is not a range of at most a million numbers from 0 up")
        found += range(low, high + 1)
    return found


def reals(text: str) -> list[float]:
    """'-3,0,3' as [-3.0, 0.0, 3.0]."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers like -3,0,3") from None
    if not all(abs(number) <= 1000 for number in found):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers from -1000 to 1000 like -3,0,3")
    return found


def names(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def add_json(command: Any) -> None:
    command.add_argument("--json", action="store_true", help="print one JSON document and nothing else")


def add_model(command: Any) -> None:
    command.add_argument("--model", metavar="FILE.py:SPEC", help="the model's file, for a run of a model of your own")


def add_codes(command: Any) -> None:
    command.add_argument("--classes", type=numbers, help="classes to make, in turn, such as 0-9")
    command.add_argument("--truncation", type=float, metavar="PSI", help="less variety, more quality, such as 0.7")


def add_certificate(command: Any) -> None:
    command.add_argument("--certificate", metavar="PEM", help="sign with this chain (leaf first) instead of your own")
    command.add_argument("--key", metavar="PEM", help="the private key of --certificate")


def show_entries(entries: list[dict], as_json: bool, as_lines: Callable[[dict], list[str]]) -> int:
    """Every file's entry; status 1 when one could not be read, else 0."""
    failed = ["error" in entry for entry in entries]
    if as_json:
        show(entries, True, [])
        return int(any(failed))
    for entry in entries:
        if "error" in entry:
            print(f"countermark: {printable(entry['error'])}", file=sys.stderr)
        else:
            show(entry, False, as_lines(entry))
    return int(any(failed))
