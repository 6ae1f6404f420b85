"""What a user is told of a training's health: by the progress, at the end, and on the page."""

from pathlib import Path

import pytest

from countermark.apps.progress import TrainingBar
from countermark.jobs import report
from countermark.jobs.train import train_model
from countermark.training.run import Journal


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run with a learning rate of 1, and all that was said."""
    folder, said = tmp_path_factory.mktemp("runs") / "broken", []
    with TrainingBar() as bar:
        bar.say = said.append  # type: ignore[method-assign]
        train_model(
            "dcgan:tiny", data="digits", out=folder, images=1600, settings=["lr=1.0"], say=said.append,
            progress=bar.update,
        )  # fmt: skip
    return folder, said


def test_a_finding_is_said_once_and_stays_in_the_line(broken: tuple[Path, list[str]]) -> None:
    said = broken[1]
    assert len([line for line in said if line.startswith("health: exploding gradients (")]) == 1
    assert any(line.startswith("100%") and "! exploding gradients" in line for line in said)
    assert said[-1].startswith("health: exploding gradients at ")


def test_the_run_s_page_shows_findings_with_advice(broken: tuple[Path, list[str]]) -> None:
    text = (broken[0] / "report.html").read_text()
    assert "exploding gradients" in text
    assert "start a new run with a tenth of lr" in text
    assert "Samples through training" in text
    assert text.count("<svg") == len(report.CHARTS)


def test_rows_of_findings_are_in_the_way_of_no_reader(broken: tuple[Path, list[str]]) -> None:
    rows = Journal(broken[0] / "metrics.jsonl").rows()
    assert any(isinstance(value, str) for row in rows for value in row.values())
    assert set(report.charts(rows)) == set(report.CHARTS)


def test_a_sound_run_s_page_says_so(tmp_path: Path) -> None:
    train_model("dcgan:tiny", data="digits", out=tmp_path / "run", images=500)
    assert "No mode collapse, overfitting" in (tmp_path / "run" / "report.html").read_text()
