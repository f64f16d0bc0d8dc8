"""Matplotlib figures, drawn with its default settings and not with a ``matplotlibrc`` of the current folder."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .files import atomic_write
from .isolation import safe_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(**options: Any) -> Figure:
    """Create an empty figure. The first call imports matplotlib, which takes a second.

    When imported, matplotlib reads a ``matplotlibrc`` from the current folder, and ``text.usetex`` in it would run
    TeX. So the import happens in an empty folder.
    """
    with safe_path(by_variable=False):
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(layout="constrained", **options)
    FigureCanvasAgg(figure)
    return figure


def write_figure(figure: Figure, path: Path, dpi: int) -> None:
    """Write a figure as a PNG, atomically. Raises OSError."""
    with atomic_write(path) as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # a name in a script that the font has not is a box
        figure.savefig(file, format="png", dpi=dpi)
