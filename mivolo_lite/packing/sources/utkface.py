"""UTKFace (Zhang, Song and Qi, CVPR 2017): labels in the file name, one aligned face an image."""

import re
from pathlib import Path

from mivolo_lite.errors import UserError
from mivolo_lite.images.jpeg import MAX_MEGAPIXELS
from mivolo_lite.labels import GENDERS
from mivolo_lite.packing.sources.cutting import photo_jpeg, read_or_reject
from mivolo_lite.packing.sources.files import image_files
from mivolo_lite.packing.sources.source import Rejected, Source, SourceImage
from mivolo_lite.shards.sample import Labels, Sample, key_of, parse_age

GROUPS = ("White", "Black", "Asian", "Indian", "Others")

_NAME = re.compile(
    r"(?P<age>\d+)_(?P<gender>[01])_(?P<group>[0-4])_\d+(?P<ending>(\.jpg\.chip)?\.[a-z0-9]+)", re.IGNORECASE
)


class UTKFaceSource(Source):
    """UTKFace's images at their full size: upright JPEGs byte for byte, others as the JPEG of what they show.

    Args:
        images: folder with ``[age]_[gender]_[race]_[date].jpg[.chip.jpg]``, nested folders included.
    """

    crop_policy = {"face": "the data set's own image, byte for byte where it is an upright JPEG"}

    def __init__(self, images: Path):
        self.images = Path(images)

    def items(self) -> list[str]:
        if not self.images.is_dir():
            raise UserError(f"--images {self.images}: no such folder; give the folder of UTKFace's images")
        names = image_files(self.images)
        if not names:
            raise UserError(f"--images {self.images}: holds no images; give the folder of UTKFace's images")
        return names

    def read(self, item: str) -> SourceImage:
        name = _NAME.fullmatch(Path(item).name)
        if name is None:
            raise Rejected("file name is not [age]_[gender]_[race]_[date].jpg")
        try:
            age = parse_age(int(name["age"]))
        except ValueError as error:
            raise Rejected(str(error)) from None
        image = read_or_reject(self.images / item, MAX_MEGAPIXELS)
        labels = Labels(age, GENDERS[int(name["gender"])], GROUPS[int(name["group"])], {"source": item})
        sample = Sample(key_of(item.removesuffix(name["ending"])), photo_jpeg(image), None, labels)
        return SourceImage(image.data, [sample])
