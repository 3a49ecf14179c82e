"""Data sets whose labels are in their files' names: one face an image."""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from mivolo_lite.errors import UserError
from mivolo_lite.images.jpeg import MAX_MEGAPIXELS
from mivolo_lite.labels import IDENTITY
from mivolo_lite.packing.crops import CropRules, check_cuts_nothing
from mivolo_lite.packing.decode import check_limit
from mivolo_lite.packing.sources.cutting import read_or_reject_bytes, whole_jpeg
from mivolo_lite.packing.sources.files import image_files
from mivolo_lite.packing.sources.source import Rejected, Source, SourceImage
from mivolo_lite.shards.sample import Labels, Sample, key_of, parse_age


class FileNameSource(Source):
    """Images that are faces, with their labels in their names. All images of a person come into the same split.

    A subclass gives the form of the names and says what they mean.

    Args:
        images: folder with the images, nested folders included.
        max_megapixels: larger images are rejected before they are decoded.
        crops: see ``CropRules``.

    Attributes:
        form: how names are written, for messages.
        pattern: what a name, or with ``whole_path`` the path in the folder, matches from its beginning to its end.
    """

    required: ClassVar[tuple[str, ...]] = ("form", "pattern", "labels")
    form: ClassVar[str]
    pattern: ClassVar[re.Pattern[str]]
    whole_path: ClassVar[bool] = False

    def __init__(self, images: Path, max_megapixels: float = MAX_MEGAPIXELS, **crops: Any):
        check_limit(max_megapixels)
        self.images, self.max_megapixels, self.rules = Path(images), max_megapixels, CropRules(**crops)
        check_cuts_nothing(self.rules)
        face = "the data set's own image, byte for byte where it is an upright JPEG"
        self.crop_policy = self.rules.policy() | {"face": face}

    def labels(self, name: re.Match[str]) -> Labels:
        """What a name means; who it is under ``identity``. Raises Rejected where it cannot be."""
        raise NotImplementedError

    def part(self, item: str) -> str | None:
        """The split that the data set itself puts an image into, None where it has none."""
        return None

    def items(self) -> list[str]:
        if not self.images.is_dir():
            raise UserError(f"--images {self.images}: no such folder; give the folder of the data set's images")
        names = image_files(self.images)
        if not names:
            raise UserError(f"--images {self.images}: holds no images; give the folder of the data set's images")
        return names

    def read(self, item: str) -> SourceImage:
        name = self.pattern.fullmatch(item if self.whole_path else item.rpartition("/")[2])
        if name is None:
            raise Rejected(f"file name is not {self.form}")
        labels = self.labels(name)
        labels, part = replace(labels, extra={"source": item} | labels.extra), self.part(item)
        data = read_or_reject_bytes(self.images / item)
        face = whole_jpeg(data, self.rules, self.max_megapixels)
        ending = name.groupdict().get("ending") or Path(item).suffix
        sample = Sample(key_of(item.removesuffix(ending)), face, None, labels)
        person = labels.extra.get(IDENTITY)
        together = None if person is None else os.fsencode(person)
        return SourceImage(data, [sample], together, split=part)


def exact_age(text: str) -> tuple[float, float]:
    """An age in a name. Raises Rejected where it is no possible age."""
    try:
        return parse_age(int(text)) or (0, 0)
    except ValueError as error:
        raise Rejected(str(error)) from None
