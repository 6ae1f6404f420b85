"""The pages of a run and of the demo: self-contained HTML with released pictures and SVG charts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from countermark.core.files import write_atomic
from countermark.core.media import Image
from countermark.data.image import PictureSet
from countermark.jobs.charts import line_chart
from countermark.jobs.page import picture_url, render
from countermark.jobs.watch import tiled
from countermark.provenance.encode import encode
from countermark.training.run import Journal, read_config

NUM_STAGES = 6
NUM_REALS = 64


def write(folder: Path, run: Path, found: dict[str, Any], reals: PictureSet) -> Path:
    """Write report.html and its charts (charts/*.svg) below `folder`; returns the page's path."""
    training = _training(run)
    for name, chart in training["charts"].items():
        write_atomic(folder / "charts" / f"{name}.svg", str(chart).encode())
    some = reals.images[:: max(1, len(reals.images) // NUM_REALS)][:NUM_REALS]
    real_grid = Image(tiled(some).repeat(2, 0).repeat(2, 1))
    page = render(
        "report.html",
        **training,
        found=found,
        grid=picture_url((folder / "samples" / "grid.png").read_bytes(), "png"),
        reals=picture_url(encode(real_grid, "png"), "png"),
    )
    write_atomic(folder / "report.html", page.encode())
    return folder / "report.html"


def write_run(run: Path) -> Path:
    """Write report.html in a run's own folder: samples through training, curves, and findings; returns its path."""
    write_atomic(run / "report.html", render("run.html", **_training(run)).encode())
    return run / "report.html"


def _training(run: Path) -> dict[str, Any]:
    """What both pages show of a training."""
    rows = Journal(run / "metrics.jsonl").rows()
    return {
        "config": read_config(run),
        "charts": charts(rows),
        "health": [row for row in rows if "health" in row],
        "stages": _stages(run / "samples"),
    }


# Of each chart: title, key in metrics.jsonl of each curve, scale.
CHARTS: dict[str, tuple[str, dict[str, str], str]] = {
    "loss": ("Loss", {"D": "D/loss", "G": "G/loss"}, "linear"),
    "grad_norm": ("Gradient norm", {"D": "D/grad_norm", "G": "G/grad_norm"}, "log"),
    "r_t": ("r_t: mean sign of D on reals (1: overfitting)", {"r_t": "D/r_t"}, "linear"),
    "fd": ("Frechet distance (own features)", {"FD": "metrics/fd"}, "log"),
    "kid": ("Kernel distance (own features)", {"KID": "metrics/kid"}, "symlog"),
}


def charts(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The curves of a training, by name; those that it has no figures of are empty."""
    return {name: line_chart(title, _series(rows, keys), scale=scale) for name, (title, keys, scale) in CHARTS.items()}


def _series(rows: list[dict[str, Any]], keys: dict[str, str]) -> dict[str, list[tuple[float, float]]]:
    return {label: [(row["nimg"], row[key]) for row in rows if key in row] for label, key in keys.items()}


def _stages(samples: Path) -> list[dict[str, Any]]:
    """Released grids from the first to the last, at about equal steps."""
    paths = sorted(samples.glob("mark*.png"))
    chosen = [paths[round(i * (len(paths) - 1) / (NUM_STAGES - 1))] for i in range(NUM_STAGES)] if paths else []
    return [
        {"nimg": int(path.stem.split("-")[1]), "url": picture_url(path.read_bytes(), "png")}
        for path in dict.fromkeys(chosen)
    ]
