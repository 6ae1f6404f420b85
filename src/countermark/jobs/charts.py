"""Line charts as SVG, to be put into a page as they are."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

COLOURS = ("#3b5bdb", "#e8590c", "#2b8a3e", "#862e9c")


def line_chart(title: str, series: Mapping[str, Sequence[tuple[float, float]]], *, scale: str = "linear") -> Markup:
    """`series` (label to (images shown, value) pairs) as an <svg>. scale: of the values, as matplotlib names it."""
    figure = Figure(figsize=(4.6, 2.8), layout="constrained")
    axes = figure.subplots()
    for (label, points), colour in zip(series.items(), COLOURS, strict=False):
        if points:
            x, y = zip(*points, strict=True)
            axes.plot([value / 1000 for value in x], y, label=label, color=colour, linewidth=1.4)
    axes.set_yscale(scale)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("thousand images shown", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if len(axes.lines) > 1:
        axes.legend(fontsize=8, frameon=False)
    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": title, "svg.fonttype": "none"}):
        figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=True)
    return Markup(stream.getvalue()[stream.getvalue().index("<svg") :])
