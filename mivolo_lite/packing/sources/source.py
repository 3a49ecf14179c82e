"""The interface of a data set that can be packed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mivolo_lite.shards.sample import Sample


class Rejected(Exception):
    """An image that cannot be used, with the reason. It is written to ``rejected.jsonl`` and counted."""


@dataclass(frozen=True)
class SourceImage:
    """The samples of one image of a data set.

    Attributes:
        identity: what its place is decided from; the image's bytes, so that exact duplicates stay together.
        samples: the people in it.
        together: what the split is decided from, equal for images that belong into the same; the identity where None.
        missing: why a crop is absent whose box is there, by ``face`` or ``body``, for each sample that lacks one.
    """

    identity: bytes
    samples: Sequence[Sample]
    together: bytes | None = None
    missing: Sequence[tuple[str, str]] = ()


class Source:
    """A data set of images on disk, or rendered.

    Instances are pickled into worker processes. ``read`` must depend on the item alone, so that shards do not depend
    on the number of workers.

    Attributes:
        crop_policy: how the crops were made, for ``dataset.json``.
        notes: what of the data set is left out before any image is read, counted, for the command's summary.
    """

    crop_policy: dict[str, Any] = {}
    notes: Sequence[str] = ()

    def items(self) -> Sequence[str]:
        """The images' names, sorted. Raises UserError when there are none."""
        raise NotImplementedError

    def read(self, item: str) -> SourceImage:
        """One image's samples. Raises Rejected with the reason when it cannot be used."""
        raise NotImplementedError
