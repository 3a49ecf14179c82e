"""Which sample to read."""

from typing import NamedTuple


class SampleRef(NamedTuple):
    """One sample to read.

    Attributes:
        epoch: which pass over the data, for the augmentation.
        sample: its number in the index.
        valid: False for a repetition that only fills up a rank's last evaluation batch.
    """

    epoch: int
    sample: int
    valid: bool = True
