"""Where a user's settings, keys, registry and caches live."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def home() -> Path:
    """The folder that holds keys, trust list, registry and caches; COUNTERMARK_HOME moves it."""
    moved = os.environ.get("COUNTERMARK_HOME")
    return Path(moved).expanduser() if moved else Path(platformdirs.user_data_dir("countermark", appauthor=False))
