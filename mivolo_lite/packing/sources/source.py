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
        identity: what its place is decided from; the image's bytes, so that exact duplicates stay together.
        samples: the people in it.
        together: what the split is decided from, equal for images that belong into the same; the identity where None.
        missing: why a crop is absent whose box is there, by ``face`` or ``body``, for each sample that lacks one.
        split: the split that the data set itself puts it into, None where it says nothing.
    """

    identity: bytes
    samples: Sequence[Sample]
    together: bytes | None = None
    missing: Sequence[tuple[str, str]] = ()
    split: str | None = None


class Source:
    """A data set of images on disk, or rendered.

    Instances are pickled into worker processes. ``read`` must depend on the item alone, so that shards do not depend
    on the number of workers.

    Attributes:
        required: what a subclass has to define.
        crop_policy: how the crops were made, for ``dataset.json``.
        preface: what the labels are taken for, in lines to print before anything is packed.
        notes: what of the data set is left out before any image is read, counted, for the command's summary.
        splits: those that the data set itself divides its images into; none where it does not.
        has_folds: whether its samples say their fold, so that dividing them is left to training.
    """

    required: ClassVar[tuple[str, ...]] = ("items", "read")
    crop_policy: dict[str, Any] = {}
    preface: Sequence[str] = ()
    notes: Sequence[str] = ()
    splits: Sequence[str] = ()
    has_folds: bool = False

    def ignore_splits(self) -> None:
        """Leave the data set's own splits aside, so that an image of which they say nothing is no fault."""
        self.splits = ()

    def items(self) -> Sequence[str]:
        """The images' names, sorted. Raises UserError when there are none."""
        raise NotImplementedError

    def read(self, item: str) -> SourceImage:
        """One image's samples. Raises Rejected with the reason when it cannot be used."""
        raise NotImplementedError


_USUAL_SPLITS = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}


def usual_split(text: str) -> str:
    """``val`` for ``Validation``, and any other name in small letters."""
    return _USUAL_SPLITS.get(text.lower(), text.lower())


def split_name(text: str, location: str) -> str:
    """The name of a split of a data set, as of its folder: ``val`` for ``Validation``. Raises UserError for no name."""
    name = usual_split(text)
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UserError(f"{location}: split {text!r:.50} cannot name a folder; use letters and digits")
    return name
