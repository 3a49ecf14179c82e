"""Several indexes as one, whose samples are numbered through them."""

from collections.abc import Iterator, Sequence

import numpy as np

from mivolo_lite.shards.index import ShardIndex


class ConcatIndex:
    """The samples of several data sets: those of the first come first, each set's in the order of its index.

    Nothing is copied: 100 million samples stay in the page cache that all processes share.

    Attributes:
        parts: the indexes.
        start: (parts,) number of each part's first sample.
    """

    def __init__(self, parts: Sequence[ShardIndex]):
        self.parts = parts
        self.start = np.cumsum([0, *map(len, parts)])[:-1]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def split(self, samples: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each part, which of the samples (B,) are its, (B,) bool, and their numbers in it."""
        owner = np.searchsorted(self.start, samples, side="right") - 1
        for place, start in enumerate(self.start):
            mine = owner == place
            yield mine, samples[mine] - start

    def locate(self, sample: int) -> tuple[int, int]:
        """The place of a sample's part, and its number in it."""
        place = int(np.searchsorted(self.start, sample, side="right")) - 1
        return place, sample - int(self.start[place])

    def select(self, name: str, samples: np.ndarray) -> np.ndarray:
        """(B,) values of a column at the samples (B,)."""
        values = np.empty(len(samples), self.parts[0].columns[name].dtype)
        for part, (mine, own) in zip(self.parts, self.split(samples), strict=True):
            values[mine] = part.select(name, own)
        return values

    def key(self, sample: int) -> str:
        """Its part's folder and its key there: two data sets may have the same keys."""
        place, own = self.locate(sample)
        return f"{self.parts[place].folder}/{self.parts[place].key(own)}"
