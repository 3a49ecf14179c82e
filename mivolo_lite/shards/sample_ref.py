"""A reference to a sample."""

from typing import NamedTuple


class SampleRef(NamedTuple):
    """One sample to read.

    Attributes:
        epoch: of the data set; seeds the augmentation.
        sample: its number in the index.
        valid: False for padding of a rank's last evaluation batch.
    """

    epoch: int
    sample: int
    valid: bool = True
