"""Figures of plots: one style, drawn without a display."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

_STYLE = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.dpi": 110,
    "font.size": 10.5,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}


@contextmanager
def drawing() -> Iterator[None]:
    """What is drawn meanwhile has the style of all plots."""
    import matplotlib

    with matplotlib.rc_context({**_STYLE, "backend": "agg"}):
        yield


def new_figure(columns: int, width: float, height: float) -> tuple[Any, list[Any]]:
    """A figure and its axes, side by side.

    Args:
        columns: How many axes.
        width: Inches.
        height: Inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")  # not pyplot: that would keep it, and seek a display
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def png(figure: Any) -> bytes:
    """The figure as a PNG file."""
    file = BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
