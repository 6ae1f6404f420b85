"""The demo's page: self-contained HTML with released pictures and SVG charts."""

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
    rows = Journal(run / "metrics.jsonl").rows()
    figures = charts(rows)
    for name, chart in figures.items():
        write_atomic(folder / "charts" / f"{name}.svg", str(chart).encode())
    some = reals.images[:: max(1, len(reals.images) // NUM_REALS)][:NUM_REALS]
    real_grid = Image(tiled(some).repeat(2, 0).repeat(2, 1))
    page = render(
        "report.html",
        config=read_config(run),
        found=found,
        charts=figures,
        health=[row for row in rows if "health" in row],
        stages=_stages(run / "samples"),
        grid=picture_url((folder / "samples" / "grid.png").read_bytes(), "png"),
        reals=picture_url(encode(real_grid, "png"), "png"),
    )
    write_atomic(folder / "report.html", page.encode())
    return folder / "report.html"


def charts(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The curves of a training, by name."""
    return {
        "loss": line_chart("Loss", _series(rows, {"D": "D/loss", "G": "G/loss"})),
        "grad_norm": line_chart("Gradient norm", _series(rows, {"D": "D/grad_norm", "G": "G/grad_norm"}), scale="log"),
        "r_t": line_chart("r_t: mean sign of D on reals (1: overfitting)", _series(rows, {"r_t": "D/r_t"})),
        "coverage": line_chart("Coverage of the pictures by samples", _series(rows, {"coverage": "health/coverage"})),
        "fd": line_chart("Frechet distance (own features)", _series(rows, {"FD": "metrics/fd"}), scale="log"),
        "kid": line_chart("Kernel distance (own features)", _series(rows, {"KID": "metrics/kid"}), scale="symlog"),
    }


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
