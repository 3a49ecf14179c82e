"""Images of faces in a folder for every person: who it is, and nothing else."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

from mivolo_lite.errors import UserError
from mivolo_lite.images.jpeg import MAX_MEGAPIXELS
from mivolo_lite.labels import IDENTITY
from mivolo_lite.packing.crops import CropRules, check_cuts_nothing
from mivolo_lite.packing.decode import check_limit
from mivolo_lite.packing.sources.cutting import read_or_reject_bytes, whole_jpeg
from mivolo_lite.packing.sources.files import image_files
from mivolo_lite.packing.sources.source import Rejected, Source, SourceImage
from mivolo_lite.shards.sample import Labels, Sample, key_of


class IdentitySource(Source):
    """``<person>/<image>.jpg``, cut to the face already. All images of a person come into the same split.

    Args:
        images: the folder of folders; a person's may have folders of its own.
        min_images: people of whom there are fewer images are rejected.
        max_megapixels: larger images are rejected before they are decoded.
        crops: see ``CropRules``; smaller images are stored byte for byte.
    """

    def __init__(self, images: Path, min_images: int = 1, max_megapixels: float = MAX_MEGAPIXELS, **crops: Any):
        if min_images < 1:
            raise UserError(f"--min_images {min_images}: give 1 or more")
        check_limit(max_megapixels)
        self.images = Path(images)
        self.min_images, self.max_megapixels, self.rules = min_images, max_megapixels, CropRules(**crops)
        check_cuts_nothing(self.rules)
        self.crop_policy = self.rules.policy() | {"face": "the data set's own image"}
        if not self.images.is_dir():
            raise UserError(f"--images {images}: no such folder; give the one with a folder for every person")
        self.names = image_files(self.images)
        self.image_count = Counter(person for name in self.names if (person := _person(name)))

    def items(self) -> list[str]:
        if not self.image_count:
            raise UserError(f"--images {self.images}: holds no <person>/<image>.jpg; give each person a folder")
        return self.names

    def read(self, item: str) -> SourceImage:
        person = _person(item)
        if not person:
            raise Rejected("lies in no person's folder")
        if self.image_count[person] < self.min_images:
            raise Rejected(f"{self.image_count[person]} of this person, fewer than --min_images {self.min_images}")
        data = read_or_reject_bytes(self.images / item)
        face = whole_jpeg(data, self.rules, self.max_megapixels)
        labels = Labels(extra={IDENTITY: person, "source": item})
        key = key_of(str(Path(item).with_suffix("")))
        sample = Sample(key, face, None, labels)
        return SourceImage(data, [sample], together=os.fsencode(person))


def _person(name: str) -> str:
    """The person's folder; empty where an image lies in none."""
    return name.rpartition("/")[0].partition("/")[0]
