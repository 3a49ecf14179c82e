"""Greedy soups (Wortsman et al., 2022, recipe 1): the mean of those fine-tuned models that lower the error."""

from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory

from mivolo_lite.convert.averages import require_new_folder
from mivolo_lite.convert.soup import soup, write_mean
from mivolo_lite.errors import UserError


def greedy_soup(checkpoints: Sequence[Path | str], out: Path | str, error_of: Callable[[Path | str], float]) -> Path:
    """Write the mean of the best checkpoint and each other that does not raise the error of the mean, best first.

    It prints the error of each checkpoint, and that of each mean.

    Args:
        checkpoints: two or more, as for ``soup``.
        out: folder to write; must not exist.
        error_of: error of a checkpoint on samples that none was trained on.

    Raises:
        UserError: as ``soup``; or no mean is as good as the best checkpoint.
    """
    require_new_folder("soup", checkpoints, out)  # before evaluating the models
    measured = []
    for folder in checkpoints:
        measured.append((error_of(folder), folder))
        print(f"{folder}: {measured[-1][0]:.3f}", flush=True)
    (least, best), *others = sorted(measured, key=itemgetter(0))
    kept = [best]
    with TemporaryDirectory() as scratch:
        for number, (_, folder) in enumerate(others):
            trial = Path(scratch) / str(number)
            write_mean([*kept, folder], trial)
            error = error_of(trial)
            is_kept = error <= least
            print(f"with {folder}: {error:.3f}, {'kept' if is_kept else 'left out'}", flush=True)
            if is_kept:
                kept, least = [*kept, folder], error
    if len(kept) == 1:
        raise UserError(f"soup: {best} alone is better than its mean with any other; use it as it is")
    return soup(kept, out)
