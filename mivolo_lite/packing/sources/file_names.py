"""Data sets whose labels are in their files' names: one face an image."""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from mivolo_lite.errors import UserError
from mivolo_lite.labels import IDENTITY
from mivolo_lite.packing.decode import read_bytes
from mivolo_lite.packing.sources.files import image_files
from mivolo_lite.packing.sources.source import SourceImage
from mivolo_lite.packing.sources.whole_images import WholeImageSource
from mivolo_lite.shards.rejects import Rejected
from mivolo_lite.shards.sample import Labels, Sample, key_of, parse_age


class FileNameSource(WholeImageSource):
    """Face images with labels in their file names. All images of a person go into the same split.

    A subclass defines the form and the meaning of the names.

    Args:
        images: folder with the images, nested folders included.
        options: see ``WholeImageSource``.

    Attributes:
        form: the form of the names, for messages.
        pattern: what a name, or with ``whole_path`` the path in the folder, matches from its beginning to its end.
    """

    required: ClassVar[tuple[str, ...]] = ("form", "pattern", "labels")
    form: ClassVar[str]
    pattern: ClassVar[re.Pattern[str]]
    whole_path: ClassVar[bool] = False

    def __init__(self, images: Path, **options: Any):
        super().__init__(images, **options)
        face = "the data set's own image, byte for byte where it is an upright JPEG"
        self.crop_policy |= {"face": face}

    def labels(self, name: re.Match[str]) -> Labels:
        """The labels in a name, with the person in ``extra[IDENTITY]``. Raises Rejected if they are impossible."""
        raise NotImplementedError

    def split(self, item: str) -> str | None:
        """The published split of an image, None if it has none."""
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
        labels = replace(labels, extra={"source": item} | labels.extra)
        split = self.split(item)
        data = read_bytes(self.images / item)
        ending = name.groupdict().get("ending") or Path(item).suffix
        sample = Sample(key_of(item.removesuffix(ending)), self.jpeg(data), None, labels)
        person = labels.extra.get(IDENTITY)
        together = None if person is None else os.fsencode(person)
        return SourceImage(data, [sample], together, split=split)


def exact_age(text: str) -> tuple[float, float]:
    """An age in a name. Raises Rejected if it is impossible."""
    try:
        return parse_age(int(text)) or (0, 0)
    except ValueError as error:
        raise Rejected(str(error)) from None
