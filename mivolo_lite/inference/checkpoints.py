"""The model of an address: a run, a converted checkpoint, or the package's own."""

from pathlib import Path

from mivolo_lite.card import MODEL_FILE
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.package_files import package_folder

DEFAULT = "weights"
"""The package's folder with its own checkpoint."""


def load_estimator(checkpoint: str | Path | None) -> Estimator:
    """The estimator of a checkpoint, in evaluation mode.

    Args:
        checkpoint: what ``Estimator.load`` takes; None for the package's own.

    Raises:
        UserError: it is not there, is damaged, or does not fit.
    """
    if checkpoint is not None:
        return Estimator.load(checkpoint)
    folder = package_folder(DEFAULT)
    if not (folder / MODEL_FILE).is_file():
        raise UserError("this installation has no checkpoint of its own; give one with --checkpoint RUN/best")
    return Estimator.load(folder)
