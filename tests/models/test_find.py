"""Finding a model by name, or in a user's own file."""

from pathlib import Path

import pytest

from countermark.core.errors import UsageError
from countermark.models import SPECS, find

OWN = """
from __future__ import annotations
from dataclasses import dataclass
from countermark.core.spec import Settings, Spec

@dataclass(frozen=True, kw_only=True)
class OwnSettings(Settings):
    width: int = 3

SPEC = Spec("own", "image", "none", 2025, {"tiny": OwnSettings(size=8)}, build=dict, phases=tuple)
OTHER = Spec("other", "image", "none", 2025, {"tiny": OwnSettings(size=8)}, build=dict, phases=tuple)
NUMBER = 3
"""


def test_names_are_unique_and_found() -> None:
    assert len({spec.name for spec in SPECS}) == len(SPECS)
    for spec in SPECS:
        assert find(spec.name) is spec
        assert "tiny" in spec.presets


def test_unknown_name_lists_the_known_ones() -> None:
    known = ", ".join(sorted(spec.name for spec in SPECS))
    with pytest.raises(UsageError, match=f"unknown model stylegann; choose {known}, or a file"):
        find("stylegann")


@pytest.mark.parametrize("name", ["", ":", "gan:tiny", "x.pyc", "x.py2:SPEC", "\x1b[31mgan"])
def test_odd_names_are_unknown(name: str) -> None:
    with pytest.raises(UsageError, match="unknown model") as caught:
        find(name)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(("suffix", "expected"), [("", "own"), (":SPEC", "own"), (":OTHER", "other"), (":", "own")])
def test_own_file(tmp_path: Path, suffix: str, expected: str) -> None:
    path = tmp_path / "my.py files" / "my_model.py"
    path.parent.mkdir()
    path.write_text(OWN)
    assert find(f"{path}{suffix}").name == expected


@pytest.mark.parametrize(
    ("text", "suffix", "message"),
    [
        (None, "", "does not exist"),
        ("SPEC = 1 / 0", "", r"does not run \(ZeroDivisionError"),
        ("SPEC = (", "", r"does not run \(SyntaxError"),
        ("import no_such_module", "", r"does not run \(ModuleNotFoundError"),
        ("raise SystemExit(0)", "", r"does not run \(SystemExit"),
        (OWN, ":NUMBER", "has no Spec called NUMBER"),
        (OWN, ":MISSING", "has no Spec called MISSING"),
    ],
)
def test_own_file_that_is_wrong(tmp_path: Path, text: str | None, suffix: str, message: str) -> None:
    path = tmp_path / "my_model.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        find(f"{path}{suffix}")
    assert "\n" not in str(caught.value)
