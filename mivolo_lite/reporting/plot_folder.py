"""The folder ``plots/`` of a page, with the plots of one command. This module does not import matplotlib."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mivolo_lite.files import explain_write_errors, write_text

if TYPE_CHECKING:
    from mivolo_lite.reporting.plots import Plot

FORMATS = ("png", "pdf", "svg")
FOLDER = "plots"
LIST = ".written"
"""File with the names of the plots that a command wrote. Other files in the folder are the user's, and are kept."""


def clear_plots(out: Path) -> None:
    """Remove the plots that an earlier command wrote into ``out``. Raises UserError where that fails."""
    folder = out / FOLDER
    with explain_write_errors(folder):
        names = (folder / LIST).read_text(encoding="utf-8").splitlines() if (folder / LIST).is_file() else []
        for name in [*names, LIST]:
            (folder / Path(name).name).unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def save_plots(plots: Iterable["Plot"], out: Path, form: str = "png") -> None:
    """Write plots to ``out/plots``, in place of earlier ones. Raises UserError if that fails."""
    clear_plots(out)
    folder, names = out / FOLDER, []
    with explain_write_errors(out):
        folder.mkdir(exist_ok=True)
    for plot in plots:
        names.append(plot.save(folder, form).name)
        write_text(folder / LIST, "\n".join(names))
