"""Several indexes as one, with samples numbered across them."""

from collections.abc import Iterator, Sequence

import numpy as np

from mivolo_lite.labels import NO_CODE
from mivolo_lite.shards.index import ShardIndex


class ConcatIndex:
    """The samples of several data sets: those of the first come first, each set's in the order of its index.

    Nothing is copied: the columns of 100 million samples stay in the page cache that all processes share.

    Attributes:
        indexes: of the data sets.
        start: (sets,) number of each set's first sample.
    """

    def __init__(self, indexes: Sequence[ShardIndex]):
        self.indexes = indexes
        self.start = np.cumsum([0, *map(len, indexes)])[:-1]

    def __len__(self) -> int:
        return sum(map(len, self.indexes))

    def split(self, samples: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each set, which of the samples (B,) it holds, (B,) bool, and their numbers in it."""
        owner = np.searchsorted(self.start, samples, side="right") - 1
        for data_set, start in enumerate(self.start):
            in_set = owner == data_set
            yield in_set, samples[in_set] - start

    def locate(self, sample: int) -> tuple[int, int]:
        """The data set of a sample, and its number there."""
        data_set = int(np.searchsorted(self.start, sample, side="right")) - 1
        return data_set, sample - int(self.start[data_set])

    def select(self, name: str, samples: np.ndarray) -> np.ndarray:
        """(B,) values of a column at the samples (B,)."""
        values = np.empty(len(samples), self.indexes[0].columns[name].dtype)
        for index, (in_set, local_samples) in zip(self.indexes, self.split(samples), strict=True):
            values[in_set] = index.select(name, local_samples)
        return values

    def key(self, sample: int) -> str:
        """Its set's folder and its key there: two data sets may have the same keys."""
        data_set, local_sample = self.locate(sample)
        return f"{self.indexes[data_set].folder}/{self.indexes[data_set].key(local_sample)}"


def concat_labels(indexes: Sequence[ShardIndex]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The labels of several indexes, one after the other, as one.

    Returns:
        Columns ``age_lo``, ``age_hi``, ``gender`` and ``group``, each (N,), and the names of the groups by their codes.
    """
    names = "age_lo", "age_hi", "gender"
    columns = {name: np.concatenate([index.columns[name] for index in indexes]) for name in names}
    groups = sorted({group for index in indexes for group in index.groups})
    return columns | {"group": np.concatenate([_group_codes(index, groups) for index in indexes])}, groups


def _group_codes(index: ShardIndex, groups: Sequence[str]) -> np.ndarray:
    """(N,) int64 codes into ``groups``, from the index's codes into the groups of its data set."""
    codes = np.full(NO_CODE + 1, NO_CODE, dtype=np.int64)
    codes[: len(index.groups)] = [groups.index(group) for group in index.groups]
    return codes[index.columns["group"]]
