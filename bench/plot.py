"""The results as a picture: how many times better than the baseline each figure is."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import subjects

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from results import Results, Row, Spread

#: Inches.
WIDTH, ROW_HEIGHT, PANEL_HEIGHT = 11.0, 0.24, 0.9
#: Labelled in every power of ten: a panel may span much less than one.
TICKS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
COLOURS = {"procession": "#1f6f8b", "multiprocessing": "#888888"}
OTHER_COLOUR = "#b5651d"
GOAL_COLOUR = "#c0392b"


def draw(results: Results, stem: Path) -> list[Path]:
    """Write the picture to *stem* with the suffixes .png and .svg, and return both paths.

    Figures without a finite ratio (a count that fell to zero) are left out: the axis is
    logarithmic. Nothing is written if that leaves none.
    """
    # Not pyplot: it would look for a display, and keep every figure alive.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for row in results.rows if _is_positive(row.gain)]
    panels = [(name, list(group)) for name, group in groupby(rows, key=lambda row: row.subject)]
    if not panels:
        return []
    heights = [PANEL_HEIGHT + ROW_HEIGHT * len(panel) for _, panel in panels]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel_axes, (name, panel) in zip(axes, panels, strict=True):
        _draw_panel(panel_axes, subjects.load(name).title, panel)
    axes[-1].set_xlabel(
        f"times better than {rows[0].baseline.library}, logarithmic: "
        "median, lowest and highest round; a bar marks the goal"
    )
    written = []
    for suffix in (".png", ".svg"):
        path = stem.with_suffix(suffix)
        figure.savefig(path, dpi=120)
        written.append(path)
    return written


def _is_positive(gain: Spread) -> bool:
    return gain.lowest > 0 and gain.highest < float("inf")


def _draw_panel(axes: Axes, title: str, rows: list[Row]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    for height, row in enumerate(rows):
        gain = row.gain
        axes.errorbar(
            gain.median,
            height,
            xerr=[[gain.median - gain.lowest], [gain.highest - gain.median]],
            fmt="o",
            markersize=4,
            capsize=2,
            color=COLOURS.get(row.candidate.library, OTHER_COLOUR),
        )
        goal = row.goal
        if goal is not None and goal.of == "ratio" and goal.bound:
            wanted = goal.bound if row.figure.better == "more" else 1 / goal.bound
            axes.plot(wanted, height, marker="|", markersize=9, color=GOAL_COLOUR)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_major_locator(LogLocator(subs=TICKS))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(
        range(len(rows)),
        [f"{row.case}, {row.figure.name}  [{row.candidate.label}]" for row in rows],
        fontsize=7,
    )
    axes.set_ylim(len(rows) - 0.5, -0.5)  # the first row on top, as in the table
    axes.grid(axis="x", linewidth=0.4, which="both")
    axes.set_title(title, loc="left", fontsize=10)
