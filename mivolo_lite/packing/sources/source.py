"""The interface of a data set that can be packed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mivolo_lite.errors import UserError
from mivolo_lite.shards.sample import Sample


@dataclass(frozen=True)
class SourceImage:
    """The samples of one image of a data set.

    Attributes:
        identity: determines the order; the image's bytes, so that exact duplicates stay together.
        samples: the people in it.
        together: determines the split, equal for images that belong into the same one; None for the identity.
        missing: (``face`` or ``body``, reason) of each crop that is absent although there is a box.
        split: the published split, None if there is none.
    """

    identity: bytes
    samples: Sequence[Sample]
    together: bytes | None = None
    missing: Sequence[tuple[str, str]] = ()
    split: str | None = None


class Source:
    """A data set of image files or rendered images.

    Instances are pickled into worker processes. ``read`` must depend on the item alone, so that shards do not depend
    on the number of workers.

    Attributes:
        required: methods that a subclass must define.
        crop_policy: how the crops were made, for ``dataset.json``.
        preface: lines on the meaning of the labels, to print before packing.
        notes: lines with counts of what is left out before reading images, for the summary.
        splits: the published splits, or empty.
        has_folds: whether samples have folds, so that training selects them instead of splits.
    """

    required: ClassVar[tuple[str, ...]] = ("items", "read")
    crop_policy: dict[str, Any] = {}
    preface: Sequence[str] = ()
    notes: Sequence[str] = ()
    splits: Sequence[str] = ()
    has_folds: bool = False

    def ignore_splits(self) -> None:
        """Ignore the published splits, so that an image without one is no error."""
        self.splits = ()

    def items(self) -> Sequence[str]:
        """The sorted names of the images. Raises UserError if there are none."""
        raise NotImplementedError

    def read(self, item: str) -> SourceImage:
        """One image's samples. Raises Rejected with the reason if it cannot be used."""
        raise NotImplementedError


_USUAL_SPLITS = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}


def usual_split(text: str) -> str:
    """``val`` for ``Validation`` and similar names, and any other name in lower case."""
    return _USUAL_SPLITS.get(text.lower(), text.lower())


def split_name(text: str, location: str) -> str:
    """``usual_split`` of a text, checked to be a folder name. Raises UserError otherwise."""
    name = usual_split(text)
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UserError(f"{location}: split {text!r:.50} cannot name a folder; use letters and digits")
    return name
