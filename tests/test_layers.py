"""The walls of the house: imports run one way, and files of models/ never import each other."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "countermark"
# Lower floors first; rooms on one floor do not see each other.
FLOORS = (
    {"core"},
    {"nn", "losses", "data"},
    {"models"},
    {"perception"},
    {"metrics"},
    {"provenance"},
    {"training"},
    {"forensics"},
    {"jobs"},
    {"apps"},
)
FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}


def imported(code: str) -> set[str]:
    """Every module of the package that `code` imports anywhere, functions and type checks included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide which wall they cross"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "countermark"}


def broken_walls(place: str, code: str) -> list[str]:
    """Imports of `code`, a file at `place` (such as models/image/dcgan.py), that go up or sideways."""
    parts = place.split("/")
    room, broken = parts[0], []
    for name in sorted(imported(code)):
        target = name.split(".")[1:]
        if not target or target[0] not in FLOOR_OF:
            continue  # countermark itself, such as __version__
        if FLOOR_OF[target[0]] > FLOOR_OF[room] or (FLOOR_OF[target[0]] == FLOOR_OF[room] and target[0] != room):
            broken.append(f"{place} imports {name}")
        elif room == "models" and len(parts) > 2 and target[0] == "models":
            broken.append(f"{place} imports {name}: models never import each other")
    return broken


def test_every_room_has_a_floor() -> None:
    rooms = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms <= set(FLOOR_OF) | {"weights"}


def test_the_walls_stand() -> None:
    files = [path for path in SOURCE.rglob("*.py") if path.parent != SOURCE]
    assert len(files) > 40
    broken = [wall for path in files for wall in broken_walls(path.relative_to(SOURCE).as_posix(), path.read_text())]
    assert not broken


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ("core/spec.py", "from countermark.data.sources import Batch"),
        ("nn/a.py", "import countermark.losses.adversarial"),
        ("models/image/a.py", "from countermark.models.image.dcgan import SPEC"),
        ("metrics/a.py", "def f():\n    from countermark.training import loop"),
        ("jobs/a.py", "from countermark.apps.cli import main"),
    ],
)
def test_a_broken_wall_is_seen(place: str, code: str) -> None:
    assert broken_walls(place, code)


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ("apps/cli.py", "from countermark.jobs.train import train_model"),
        ("models/__init__.py", "from countermark.models.image.dcgan import SPEC"),
        ("jobs/a.py", "from countermark.jobs.watch import tiled\nimport numpy"),
    ],
)
def test_doors_are_open(place: str, code: str) -> None:
    assert not broken_walls(place, code)
