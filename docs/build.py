"""`make docs`: put the tables of benchmarks/results and of the models into README and zoo.md, between their markers.

python -m docs.build [--check]    --check: change nothing, fail when something would change
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from benchmarks.record import RESULTS, markdown
from countermark.core.files import write_atomic
from countermark.jobs.models import list_models

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "README.zh.md", ROOT / "docs" / "zoo.md", ROOT / "docs" / "health.md")
MARKED = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(name: str) -> str:
    """The table called `name`, with the machine and the date that it is of."""
    if name == "models":
        return models() + "\n"
    result = json.loads((RESULTS / f"{name}.json").read_text())
    machine = result["machine"]
    source = f"{machine['date']}, {machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}"
    return f"{markdown(result['header'], result['rows'])}\n\n<sub>{source}</sub>\n"


def models() -> str:
    """Every preset with its parameter counts."""
    rows = [
        [f"`{model['name']}:{name}`", model["year"], model["paper"], preset["size"], counts(preset["parameters"])]
        for model in list_models()
        for name, preset in model["presets"].items()
    ]
    return markdown(["model", "year", "paper", "px", "parameters"], rows)


def counts(parameters: dict[str, int]) -> str:
    return ", ".join(f"{network} {count:,}" for network, count in parameters.items())


def filled(page: str) -> str:
    """`page` with every marked table made anew."""
    return MARKED.sub(lambda match: match[1] + table(match[2]) + match[3], page)


def main() -> None:
    check = sys.argv[1:] == ["--check"]
    for path in PAGES:
        page = path.read_text()
        if page == filled(page):
            continue
        if check:
            sys.exit(f"{path.name} is not up to date; run: make docs")
        write_atomic(path, filled(page).encode())


if __name__ == "__main__":
    main()
