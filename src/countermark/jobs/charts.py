"""Line charts as SVG, to be put into a page as they are."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

COLOURS = ("#3b5bdb", "#e8590c", "#2b8a3e", "#862e9c")


def line_chart(
    title: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    scale: str = "linear",
    x: str = "thousand images shown",
) -> Markup:
    """`series` (label to (images shown, value) pairs) as an <svg>. scale: of the values, as matplotlib names it.

    x: the label of the first values, which are divided by a thousand.
    """
    figure = Figure(figsize=(4.6, 2.8), layout="constrained")
    axes = figure.subplots()
    for (label, points), colour in zip(series.items(), COLOURS, strict=False):
        if points:
            places, values = zip(*points, strict=True)
            axes.plot([place / 1000 for place in places], values, label=label, color=colour, linewidth=1.4)
    axes.set_yscale(scale)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if len(axes.lines) > 1:
        axes.legend(fontsize=8, frameon=False)
    return as_svg(figure, title)


def as_svg(figure: Figure, salt: str) -> Markup:
    """A figure as an <svg>, the same bytes for the same figure. salt: what the names inside it are derived from."""
    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": salt, "svg.fonttype": "none", "path.simplify": False}):
        figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=True)
    return Markup(stream.getvalue()[stream.getvalue().index("<svg") :])


def scatter_charts(panels: Mapping[str, np.ndarray], *, limit: float, columns: int = 4) -> Markup:
    """Points [N,2] of each panel as dots, in squares from -limit to limit, as one <svg>."""
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(2.1 * columns, 2.25 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (title, points) in zip(grid.flat, panels.items(), strict=False):
        # One path of short strokes, round at both ends: a third of the bytes of a marker a point.
        places = np.stack([points, points + np.array([limit / 200, 0]), np.full_like(points, np.nan)], 1).reshape(-1, 2)
        axes.plot(*places.T, color=COLOURS[0], linewidth=2.2, solid_capstyle="round", alpha=0.6, rasterized=True)
        axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
        axes.set_title(title, fontsize=9)
    return as_svg(figure, "/".join(panels))
