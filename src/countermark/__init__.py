"""Countermark: a laboratory for synthetic media made by adversarial networks.

`import countermark as cm`; cm.train, cm.import_run, cm.load(run).sample(seeds), cm.project, cm.directions, cm.export,
cm.release, cm.verify, cm.detect. Each name loads what it needs on first use, so that importing the package costs
nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PLACES = {
    "train": ("countermark.jobs.train", "train_model"),
    "import_run": ("countermark.jobs.importing", "import_run"),
    "export": ("countermark.jobs.export", "export_run"),
    "project": ("countermark.jobs.project", "project_files"),
    "directions": ("countermark.jobs.directions", "release_directions"),
    "load": ("countermark.training.trained", "load_run"),
    "release": ("countermark.provenance.release", "release"),
    "verify": ("countermark.provenance.verify", "verify"),
    "detect": ("countermark.forensics.evidence", "detect"),
}
__all__ = [
    "__version__",
    "detect",
    "directions",
    "export",
    "import_run",
    "load",
    "project",
    "release",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'countermark' has no attribute {name!r}")
    module, attribute = _PLACES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
