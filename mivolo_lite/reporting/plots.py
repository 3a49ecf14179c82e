"""The style of plots: in a page, where they take the colour of its text, and as files for a paper."""

import io
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from mivolo_lite.files import written_aside

INK = "#010203"
"""The colour of text and lines. In a page it is replaced by the page's text colour, light or dark."""

BLUE, ORANGE, GREEN, PURPLE, RED = "#3b82c4", "#d9770f", "#2a9a6e", "#a565c8", "#d0453d"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED)
"""The colours of curves, legible on white and on black."""

SHADES = ListedColormap([(0.231, 0.51, 0.769, alpha) for alpha in np.linspace(0.1, 0.75, 8)])
"""A colour map from transparent to opaque, so that text stays legible on any background."""
DENSE = ListedColormap([(0.231, 0.51, 0.769, alpha) for alpha in np.linspace(0.3, 1, 8)])

_STYLE: Any = {
    "font.size": 9.5,
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    "text.parse_math": False,  # do not read names with a dollar sign as formulas
    "pdf.fonttype": 42,  # TrueType, as publishers ask for
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
}
_METADATA = {
    "png": {},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""Metadata without a date, so that the same plot gives the same file."""


@dataclass(frozen=True)
class Plot:
    """A plot to draw.

    Attributes:
        name: of its file.
        caption: what it shows.
        draw: draws on the axes that it is given.
        size: width and height in inches.
        note: a remark for the reader.
    """

    name: str
    caption: str
    draw: Callable[[Axes], None]
    size: tuple[float, float] = (4.0, 3.1)
    note: str = ""

    @cached_property
    def figure(self) -> Figure:
        """Matplotlib's figure."""
        with self._style():
            figure = Figure(figsize=self.size, layout="constrained")
            self.draw(figure.add_subplot())
            layout = figure.get_layout_engine()
            assert layout is not None
            layout.execute(figure)  # lay out once for all formats
            figure.set_layout_engine()
        return figure

    @property
    def svg(self) -> Markup:
        """An element to put into a page."""
        text = self._bytes("svg", transparent=True).decode()
        label = f'<svg role="img" aria-label="{escape(self.caption)}"'
        return Markup(text[text.index("<svg") :].replace(INK, "currentColor").replace("<svg", label, 1))

    def save(self, folder: Path, form: str = "png") -> Path:
        """Write the plot into a folder, in one of ``plot_folder.FORMATS``. Raises UserError where that fails."""
        path = folder / f"{self.name}.{form}"
        with written_aside(path) as partial:
            partial.write_bytes(self._bytes(form, dpi=150, facecolor="white"))
        return path

    def _bytes(self, form: str, **options: Any) -> bytes:
        file = io.BytesIO()
        with self._style():
            self.figure.savefig(file, format=form, metadata=_METADATA[form], **options)
        return file.getvalue()

    def _style(self) -> AbstractContextManager[None]:
        # The salt of names inside an SVG: they must differ within a page, but not between two runs.
        return matplotlib.rc_context(_STYLE | {"svg.hashsalt": self.name})


def reference(ax: Axes, x: Sequence[float], y: Sequence[float]) -> None:
    """A reference line."""
    ax.plot(x, y, color=INK, linewidth=1, linestyle="--", alpha=0.6, gid=REFERENCE)


def legend(ax: Axes) -> None:
    """The names of the curves, if any, in rows above the plot, where they cover no intervals."""
    if not ax.get_legend_handles_labels()[1]:
        return
    figure = ax.get_figure(root=True)
    assert figure is not None
    names = figure.legend(loc="outside upper left")
    figure.set_figheight(figure.get_figheight() + _ROW * len(names.get_texts()))


_ROW = 0.18
"""Inches of a name in a legend."""

REFERENCE = "reference"
"""Marks what is no data."""
