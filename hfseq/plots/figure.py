"""What every picture begins and ends with: matplotlib, and a file that is whole or not there.

Figures are made without pyplot: no display, no state that outlives the picture.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 140


def has_matplotlib() -> bool:
    """Whether pictures can be drawn here."""
    try:
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True


def require_matplotlib() -> None:
    """Raises ModuleNotFoundError, with the remedy, where pictures cannot be drawn."""
    try:
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("Pictures need matplotlib: pip install 'hfseq[report]'") from error


def new_figure(width: float, height: float) -> Figure:
    """An empty figure that keeps its parts from overlapping.

    Args:
        width, height: in inches.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Writes the figure in the format of the path's ending (PNG where it has none); a reader sees all of it or none."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    figure.savefig(part, dpi=DPI, format=path.suffix[1:] or "png")
    os.replace(part, path)
    return path


__all__ = ["has_matplotlib", "new_figure", "require_matplotlib", "save"]
