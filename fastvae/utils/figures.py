"""Matplotlib's figures, drawn by its own settings: not by those that lie in the folder where a command is started."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .files import fresh
from .isolation import safe_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(**options: Any) -> Figure:
    """An empty figure. Matplotlib is first imported here: it takes a second.

    It looks for a ``matplotlibrc`` in the current folder, whose ``text.usetex`` would run TeX: so that is another one
    meanwhile.
    """
    with safe_path(by_variable=False):
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(layout="constrained", **options)
    FigureCanvasAgg(figure)
    return figure


def write_figure(figure: Figure, path: Path, dpi: int) -> None:
    """Write a figure as a PNG, whole or not at all. Raises OSError."""
    with fresh(path) as file:
        figure.savefig(file, format="png", dpi=dpi)
