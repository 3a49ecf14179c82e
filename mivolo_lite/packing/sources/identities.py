"""Face images in one folder for each person, for recognition."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

from mivolo_lite.errors import UserError
from mivolo_lite.labels import IDENTITY
from mivolo_lite.packing.decode import read_bytes
from mivolo_lite.packing.sources.files import image_files
from mivolo_lite.packing.sources.source import SourceImage
from mivolo_lite.packing.sources.whole_images import WholeImageSource
from mivolo_lite.shards.rejects import Rejected
from mivolo_lite.shards.sample import Labels, Sample, key_of


class IdentitySource(WholeImageSource):
    """Face crops in ``<person>/<image>.jpg``. All images of a person go into the same split.

    Args:
        images: folder with the people's folders, which may be nested.
        min_images: people with fewer images are rejected.
        options: see ``WholeImageSource``.
    """

    def __init__(self, images: Path, min_images: int = 1, **options: Any):
        if min_images < 1:
            raise UserError(f"--min_images {min_images}: give 1 or more")
        self.min_images = min_images
        super().__init__(images, **options)
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
        data = read_bytes(self.images / item)
        labels = Labels(extra={IDENTITY: person, "source": item})
        key = key_of(str(Path(item).with_suffix("")))
        sample = Sample(key, self.jpeg(data), None, labels)
        return SourceImage(data, [sample], together=os.fsencode(person))


def _person(name: str) -> str:
    """The person's folder; empty for an image outside of one."""
    return name.rpartition("/")[0].partition("/")[0]
