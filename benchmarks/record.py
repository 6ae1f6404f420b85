"""What every benchmark leaves: a table on the screen, and JSON with the machine's description in results/."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from countermark import __version__
from countermark.core.files import write_atomic

RESULTS = Path(__file__).parent / "results"
_BROKEN: list[str] = []


def machine() -> dict[str, Any]:
    """The machine that the figures are of."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "countermark": __version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        if info.exists()
        else []
    )
    return names[0] if names else platform.processor()


def write(name: str, command: str, header: Sequence[str], rows: Sequence[Sequence[Any]], **more: Any) -> Path:
    """Print the table and write results/<name>.json: {machine, command, header, rows, ...}.

    Ends the process with status 1 when a bar is not held (`require`).
    """
    print(markdown(header, rows))
    document = {
        "machine": machine(),
        "command": command,
        "header": list(header),
        "rows": [list(row) for row in rows],
        **more,
    }
    path = RESULTS / f"{name}.json"
    write_atomic(path, (json.dumps(document, indent=1) + "\n").encode())
    if _BROKEN:
        raise SystemExit(f"not held: {'; '.join(_BROKEN)}")
    return path


def require(held: bool, bar: str) -> None:
    """Note a bar that is not held: `write` ends the process with it, once the figures are written."""
    if not held:
        _BROKEN.append(bar)


def with_interval(figure: Mapping[str, Any]) -> str:
    """{value, ci95} in one cell."""
    low, high = figure["ci95"]
    return f"{figure['value']:.3g} ({low:.3g} to {high:.3g})"


def markdown(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown."""
    lines = [header, ["-"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_shown(cell) for cell in line) + " |" for line in lines)


def _shown(cell: Any) -> str:
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
