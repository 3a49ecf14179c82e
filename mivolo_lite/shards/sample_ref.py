"""Which sample to read."""

from typing import NamedTuple


class Draw(NamedTuple):
    """One sample to read.

    Attributes:
        epoch: which pass over the data, for the augmentation.
        sample: its number in the index.
        counted: False for a repetition that only fills up a rank's last evaluation batch.
    """

    epoch: int
    sample: int
    counted: bool = True
