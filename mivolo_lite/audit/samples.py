"""All samples of several folders of shards, numbered consecutively."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mivolo_lite.credentials import without_credentials
from mivolo_lite.errors import UserError
from mivolo_lite.labels import GENDERS, NO_CODE
from mivolo_lite.paths import is_url
from mivolo_lite.shards.concat import concat_labels
from mivolo_lite.shards.index import ShardIndex


class Samples:
    """Samples by number: those of the first folder come first, each folder's in the order of its index.

    Attributes:
        indexes: of the folders.
        names: the folders as they were given.
        short_names: their last parts, if these are unique.
        folder: (N,) index of each sample's folder.
        age_lo, age_hi: (N,) in years, NaN where unknown.
        gender, group: (N,) codes, ``NO_CODE`` where unknown; groups are codes into ``groups``.
        groups: names of the groups of all folders.
    """

    def __init__(self, folders: Sequence[Path | str]):
        self.names = [without_credentials(str(folder)) for folder in folders]
        resolved = [Path(folder).resolve() for folder in folders]
        for position, path in enumerate(resolved):
            if path in resolved[:position]:
                raise UserError(f"{self.names[position]}: given twice; name each folder once")
        last_parts = [path.name for path in resolved]
        self.short_names = last_parts if len(set(last_parts)) == len(last_parts) else self.names
        for name in self.names:
            if is_url(name):
                raise UserError(f"{name}: an audit reads every image; copy the shards to this machine first")
        self.indexes = [ShardIndex.load(folder) for folder in folders]
        sizes = [len(index) for index in self.indexes]
        self.starts = np.cumsum([0, *sizes])
        self.folder = np.repeat(np.arange(len(sizes)), sizes)
        columns, self.groups = concat_labels(self.indexes)
        self.age_lo, self.age_hi = columns["age_lo"], columns["age_hi"]
        self.gender, self.group = columns["gender"], columns["group"]

    def __len__(self) -> int:
        return int(self.starts[-1])

    def locate(self, sample: int) -> tuple[int, int]:
        """A sample's folder, and its number there."""
        folder = int(self.folder[sample])
        return folder, int(sample - self.starts[folder])

    def key(self, sample: int) -> str:
        folder, local_sample = self.locate(sample)
        return self.indexes[folder].key(local_sample)

    def label_texts(self, sample: int) -> tuple[str, str, str]:
        """A sample's age (a range as ``lo;hi``), gender and group, each empty where unknown."""
        lo, hi, gender, group = (column[sample] for column in (self.age_lo, self.age_hi, self.gender, self.group))
        age = "" if np.isnan(lo) else f"{lo:g}" if lo == hi else f"{lo:g};{hi:g}"
        return age, "" if gender == NO_CODE else GENDERS[gender], "" if group == NO_CODE else self.groups[group]

    def present(self, image: str) -> np.ndarray:
        """(n,) numbers of the samples that have a ``face`` or ``body``."""
        return np.flatnonzero(np.concatenate([index.has_image([image]) for index in self.indexes]))
