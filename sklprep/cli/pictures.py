"""Pictures that commands write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sklprep.exceptions import UsageError


def picture_format(path: Path) -> str:
    """Give the format that a file's name asks for; refuse one that cannot be drawn."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError:
        raise UsageError(
            "--plot needs matplotlib, which is not installed: pip install 'sklprep[plot]'."
        ) from None
    kind = path.suffix.removeprefix(".").lower() or "png"
    if kind not in FigureCanvasBase.filetypes:
        raise UsageError(
            f"--plot {path}: {kind} is not a picture format; name it .png, .svg or .pdf."
        )
    return kind


def save_picture(path: Path, draw: Callable[[], Any]) -> None:
    """Write the figure that `draw` returns, atomically and without a display."""
    import matplotlib as mpl

    from sklprep.files.atomic import atomic_write

    mpl.use("Agg")
    figure = draw()
    with atomic_write(path) as file:
        figure.savefig(file, format=picture_format(path), dpi=150, bbox_inches="tight")
