"""Which folder a RUN means."""

import json
from pathlib import Path

import pytest

from countermark.core.errors import UsageError
from countermark.training import shipped
from countermark.training.shipped import run_folder


@pytest.fixture(autouse=True)
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two trained models, and two folders that are none."""
    for name in ("a@one", "a@two", ".partial", "b@empty"):
        (tmp_path / "weights" / name).mkdir(parents=True)
    for name in ("a@one", "a@two", ".partial"):
        (tmp_path / "weights" / name / "config.json").write_text(json.dumps({}))
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path / "weights")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "weights"


def test_names_of_trained_models_are_their_folders(weights: Path) -> None:
    assert shipped.shipped() == {"a@one": weights / "a@one", "a@two": weights / "a@two"}
    assert run_folder("a@two") == run_folder(Path("a@two")) == weights / "a@two"


def test_a_path_that_exists_wins(tmp_path: Path) -> None:
    Path("a@two").mkdir()
    assert run_folder("a@two") == Path("a@two")


@pytest.mark.parametrize("name", ["runs", "runs/me@home", "./a@three", "/tmp/a@one/b"])
def test_other_words_are_paths(name: str) -> None:
    assert run_folder(name) == Path(name)


@pytest.mark.parametrize("name", ["a@three", "b@empty", "..@", "a@one*", "@", "a@\x1b[31m"])
def test_an_unknown_name_is_one_printable_line(name: str) -> None:
    with pytest.raises(
        UsageError, match=r"neither a run folder nor a trained model; these ship: a@one, a@two"
    ) as caught:
        run_folder(name)
    assert str(caught.value).isprintable()


def test_where_nothing_ships_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path / "gone")
    assert shipped.shipped() == {}
    with pytest.raises(UsageError, match="none ships with this version"):
        run_folder("a@one")
