"""Greedy soups (Wortsman et al., 2022, recipe 1): of several fine-tuned models, the mean of those that help."""

from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory

from mivolo_lite.convert.averages import require_new_folder
from mivolo_lite.convert.soup import soup, write_mean
from mivolo_lite.errors import UserError


def greedy_soup(checkpoints: Sequence[Path | str], out: Path | str, error_of: Callable[[Path | str], float]) -> Path:
    """Write the mean of the best checkpoint and of each other that does not make the mean worse, best first.

    A line for each checkpoint says its own error, and one what the mean with it has.

    Args:
        checkpoints: two or more, as for ``soup``.
        out: folder to write; must not exist.
        error_of: measures a checkpoint on samples that none was trained on; lower is better.

    Raises:
        UserError: as of ``soup``; or no mean is as good as the best checkpoint alone.
    """
    require_new_folder("soup", checkpoints, out)  # before the models are measured
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
