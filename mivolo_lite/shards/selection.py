"""The samples of a data set that a command uses."""

from collections.abc import Sequence
from pathlib import Path

from mivolo_lite.shards.cache import CacheConfig
from mivolo_lite.shards.exclude import leave_out, read_exclusions
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.subset import select_folds


def load_selected(
    folder: Path | str,
    cache: CacheConfig | None = None,
    folds: Sequence[int] | None = None,
    exclude: Path | str | None = None,
    option: str = "--exclude",
) -> ShardIndex:
    """The index of a data set, of some of its folds, without the samples that a list names.

    Args:
        folder: of indexed shards, or their URL.
        cache: of the node, for shards at a URL.
        folds: their numbers; all samples where None.
        exclude: list of samples to leave out, by their keys.
        option: the option with that list, for messages.

    Raises:
        UserError: as ``ShardIndex.load`` does; there is no such fold; the list cannot be read, or names all samples.
    """
    return leave_out(select_folds(ShardIndex.load(folder, cache), folds), read_exclusions(exclude, option))
