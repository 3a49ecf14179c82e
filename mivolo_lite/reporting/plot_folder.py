"""The folder ``plots/`` beside a page: the plots of one command, and no others. It needs no matplotlib."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mivolo_lite.files import explain_write_errors

if TYPE_CHECKING:
    from mivolo_lite.reporting.plots import Plot

FORMATS = ("png", "pdf", "svg")
FOLDER = "plots"


def clear_plots(out: Path) -> None:
    """Remove the plots that an earlier command left in ``out``. Raises UserError where that fails."""
    folder = out / FOLDER
    with explain_write_errors(folder):
        for path in [path for form in FORMATS for path in folder.glob(f"*.{form}")]:
            path.unlink()
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def save_plots(plots: Iterable["Plot"], out: Path, form: str = "png") -> None:
    """Write plots into ``out/plots``, where no others stay. Raises UserError where that fails."""
    clear_plots(out)
    with explain_write_errors(out):
        (out / FOLDER).mkdir(exist_ok=True)
    for plot in plots:
        plot.save(out / FOLDER, form)
