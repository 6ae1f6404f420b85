"""The command line: words in, one call of a job, words out. Nothing heavy is imported before a command is chosen."""

from __future__ import annotations

import argparse
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from countermark.apps.commands import (
    data,
    demo,
    detect,
    directions,
    evaluate,
    export,
    import_,
    interpolate,
    models,
    project,
    sample,
    train,
    verify,
)
from countermark.core.errors import CountermarkError
from countermark.core.text import printable

# In the order in which --help shows them.
COMMANDS = (
    demo,
    models,
    data,
    train,
    sample,
    interpolate,
    evaluate,
    import_,
    project,
    directions,
    export,
    verify,
    detect,
)
EXAMPLES = """examples:
  countermark demo
  countermark train dcgan --data mnist5k --out runs/digits --minutes 3
  countermark train r3gan --data my_photos/ --size 64 --out runs/photos --images 500000
  countermark train r3gan --data my_photos/ --size 64 --out runs/photos --images 500000 --devices 2
  countermark sample runs/digits --out samples --seeds 0-63
  countermark evaluate runs/digits --data mnist5k --metrics fd,kid,pr,dc
  countermark import network-snapshot-final.pkl --model r3gan --out runs/faces
  countermark project runs/faces photo.jpg --out projected
  countermark directions runs/faces --method sefa --out directions
  countermark export runs/faces --format onnx --out faces.onnx
  countermark verify samples/*.png
  countermark train npr --data mnist5k --against runs/digits --out runs/detector --images 40000
  countermark detect --detector runs/detector picture.png
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit status 0, 1 for a failure, 2 for bad use, 130 for an interruption."""
    # Torch's threads otherwise burn a core while they wait; on a busy machine that makes training ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Large pages: a training step's memory comes with a few hundred faults in place of a hundred thousand.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that cannot show a name's letters gets their escapes
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = _parse(argv)
    try:
        with _sigterm_interrupts():
            return int(arguments.run(arguments) or 0)
    except CountermarkError as error:
        print(f"countermark: {printable(error)}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        goes_on = "; the same command goes on from the last state" if arguments.command in ("train", "demo") else ""
        print(f"countermark: interrupted{goes_on}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output closed it: `countermark models | head`
        sys.stderr.close()
        return 1
    except OSError as error:  # a home, a run or an output that the system does not let us into
        print(f"countermark: {printable(error.filename or 'output')}: {error.strerror or error}", file=sys.stderr)
        return 1
    except MemoryError:
        print("countermark: out of memory; give smaller pictures or settings", file=sys.stderr)
        return 1


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Within it the end that a queue or a container sets is an interruption, after which nothing is half-written."""
    if threading.current_thread() is not threading.main_thread():  # which alone may take signals
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """argparse takes NAME=VALUE words only where the first positional stands; here they may follow options too."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if any("=" not in word or word.startswith("-") for word in rest) or (rest and arguments.command != "train"):
        parser.error(f"{' '.join(rest)} is not understood")
    if rest:
        arguments.settings += rest
    return arguments


class _Parser(argparse.ArgumentParser):
    """argparse with one line for an error, as everywhere else, and lists that begin with a negative number."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def error(self, message: str) -> Any:
        print(f"{self.prog}: {printable(message)} (see {self.prog} --help)", file=sys.stderr)
        sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="countermark",
        description="Train GANs, mark all that they make, verify marks, detect what is unmarked.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    for command in COMMANDS:
        command.add(commands)
    return parser


def _version() -> str:
    from countermark import __version__

    return f"countermark {__version__}"


if __name__ == "__main__":
    sys.exit(main())
