"""`countermark verify`: the marks of files."""

from __future__ import annotations

import argparse
from typing import Any

from countermark.apps.options import add_command, add_json, show_entries


def add(commands: Any) -> None:
    text = "show the marks of files: signature, watermark, labels, registry; evidence, no verdict"
    command = add_command(commands, "verify", run, text, "verify samples/*.png")
    command.add_argument("files", nargs="+", metavar="FILE")
    command.add_argument("--report", metavar="FILE.html", help="write a page that shows the evidence")
    add_json(command)


def run(arguments: argparse.Namespace) -> int:
    from countermark.jobs.verify import as_lines, verify_files

    entries = verify_files(arguments.files, report=arguments.report)
    return show_entries(entries, arguments.json, as_lines)
