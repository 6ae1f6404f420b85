"""The README's commands run as they are typed, and its tables are those of the results in the repository."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from docs.build import PAGES, filled

ROOT = Path(__file__).parents[1]
READMES = ("README.md", "README.zh.md")


def commands(page: str) -> list[str]:
    """The lines of the page's sh blocks, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def test_both_readmes_say_the_same_commands() -> None:
    english, chinese = (commands((ROOT / name).read_text()) for name in READMES)
    assert english == chinese
    assert english[:2] == ["make demo", "make test"]


def test_make_knows_every_target() -> None:
    for target in ("install", "demo", "test", "bench", "docs", "clean"):
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_the_commands_run_as_typed(tmp_path: Path, home: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    typed = [command for command in commands((ROOT / "README.md").read_text()) if command.startswith("countermark ")]
    assert {command.split()[1] for command in typed} == {
        "models", "data", "train", "sample", "evaluate", "interpolate", "project", "directions", "export", "verify",
        "detect",
    }  # fmt: skip
    for command in typed:
        done = subprocess.run(shlex.split(command), cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert done.stdout
        assert "Traceback" not in done.stderr
    assert "synthetic (decided by credentials" in done.stdout


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_tables_are_up_to_date_and_pictures_exist(path: Path) -> None:
    page = path.read_text()
    assert filled(page) == page
    for linked in re.findall(r"\]\((?!http)([^)#]+)\)", page):
        assert (path.parent / linked).exists(), linked
