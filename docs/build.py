"""`make docs`: put the tables of benchmarks/results and of the models into the pages, between their markers.

python -m docs.build [--check]    --check: change nothing, fail when something would change
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path

from benchmarks.record import RESULTS, markdown
from countermark.core.errors import UsageError
from countermark.core.files import write_atomic
from countermark.core.spec import Settings, Spec
from countermark.jobs.models import list_models
from countermark.models import SPECS
from countermark.training.cures import CURES, cured
from countermark.training.cures.cure import Cure

ROOT = Path(__file__).parents[1]
PAGES = (
    ROOT / "README.md",
    ROOT / "README.zh.md",
    *(ROOT / "docs" / f"{page}.md" for page in ("zoo", "data", "cures", "gans", "scale", "health")),
)
MARKED = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(name: str) -> str:
    """The table called `name`, with the machine and the date that it is of."""
    if name in LISTS:
        return LISTS[name]() + "\n"
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


def cures() -> str:
    """Every cure, and the models that it does not fit."""
    gans = [spec for spec in SPECS if spec.kind == "image"]
    rows = [[f"`{c.name}`", c.paper, c.about, f"{c.number}: {_default(c)}", _misfits(c, gans)] for c in CURES]
    return markdown(["cure", "paper", "what it does", "its number: default", "not with"], rows)


def _default(cure: Cure) -> str:
    small, large = (cure.default(Settings(size=size, batch=16)) for size in (32, 64))
    return f"{small:g}" if small == large else f"{small:g} at 32 px, {large:g} at 64 px (batch 16)"


def _misfits(cure: Cure, gans: list[Spec]) -> str:
    """The models that refuse the cure, by reason: as their first preset, or as `tiny`, which is built."""
    reasons: dict[str, list[str]] = {}
    for spec in gans:
        first, tiny = (
            dataclasses.replace(preset, cures=(cure.name,))
            for preset in (next(iter(spec.presets.values())), spec.presets["tiny"])
        )
        try:
            cured(spec, first)
            cured(spec, tiny).build(tiny)
        except UsageError as error:
            reasons.setdefault(str(error).split(": ")[-1].removesuffix("; leave it out"), []).append(spec.name)
    return "; ".join(f"{', '.join(names)} ({reason})" for reason, names in reasons.items())


LISTS = {"models": models, "cures": cures}


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
