"""The common style of all pictures of the library: plain axes, one palette, no display needed.

A domain's report makes its panels with :func:`figure` and passes them, as functions, to :func:`draw`, which sets the
style, writes the PNG files and returns their paths. No global state changes: pyplot is never imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fm_science.storage import atomic

INK, QUIET = "#22272e", "#8a929c"
COLOURS = ("#d1495b", "#2b4c7e", "#6f9fc8", "#c9a227", "#5b8c5a", "#7d5ba6")  #: samples first, then the reference rows
STYLE: Any = {
    "font.size": 9, "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.titlepad": 8, "axes.labelcolor": INK, "axes.edgecolor": QUIET, "axes.linewidth": 0.8, "text.color": INK,
    "xtick.color": QUIET, "ytick.color": QUIET, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "figure.facecolor": "white",
}  # fmt: skip


def figure(width: float, height: float, layout: Any = "constrained") -> Any:
    """An empty matplotlib figure of this size in inches, on its own canvas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(made)
    return made


def draw(pictures: Mapping[str, Callable[[], Any]], folder: str | Path, dpi: int = 150) -> list[Path]:
    """Make each named figure in the shared style and write it to ``folder/name.png``; returns the paths."""
    import matplotlib

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    with matplotlib.rc_context(STYLE):
        for name, make in pictures.items():
            files.append(folder / f"{name}.png")
            with atomic(files[-1]) as part:
                make().savefig(part, dpi=dpi, format=files[-1].suffix[1:])
    return files
