"""FairFace (Kärkkäinen and Joo, WACV 2021): one person a photo, the age as a group of years."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mivolo_lite.errors import UserError
from mivolo_lite.images.jpeg import MAX_MEGAPIXELS
from mivolo_lite.packing.crops import Box, CropRules
from mivolo_lite.packing.decode import check_limit
from mivolo_lite.packing.sources.annotations import check_folder
from mivolo_lite.packing.sources.cells import FACE_COLUMNS, GenderCodes, age_of, box_of
from mivolo_lite.packing.sources.cutting import Crops, cut_person, photo_jpeg, read_or_reject
from mivolo_lite.packing.sources.source import Rejected, Source, SourceImage
from mivolo_lite.packing.sources.table import read_csv
from mivolo_lite.shards.sample import Labels, Sample, key_of

_COLUMNS = ("file", "age", "gender")

FACE_SCALE = 1.3
"""How much larger than the aligner's square the face box is: from the forehead to just below the chin."""


class FairFaceSource(Source):
    """FairFace's photos: each is the body of the person in its middle, with the face blanked out.

    Args:
        images: folder that the CSV's ``file`` is relative to.
        csv: ``file,age,gender[,race][,face_x0,face_y0,face_x1,face_y1]``; ages such as ``30-39``, ``70+`` or
            ``more than 70`` become ranges.
        gender_codes: what other cells of the column gender than Male and Female mean, such as 0=M,1=F.
        face: also cut the face out: by the CSV's box where it has one, else by a centred square whose side is
            ``1.3 / (1 + 2 margin)`` of the photo's. Without it the photo as it is, face and all, is the body.
        margin: the margin that FairFace's photos were cut with, 1.25 or 0.25 faces on every side.
        crop_size: largest side in pixels that a crop is stored with.
        max_megapixels: larger photos are rejected before they are decoded.
    """

    def __init__(
        self,
        images: Path,
        csv: Path,
        gender_codes: str = "",
        face: bool = True,
        margin: float = 1.25,
        crop_size: int = 448,
        max_megapixels: float = MAX_MEGAPIXELS,
    ):
        if not 0 <= margin < math.inf:
            raise UserError(f"--margin {margin}: give the photos' margin around the face, 1.25 or 0.25")
        check_limit(max_megapixels)
        self.images = Path(images)
        self.gender_of = GenderCodes(gender_codes)
        self.face = face
        self.margin = margin
        self.rules = CropRules(crop_size=crop_size)
        self.max_megapixels = max_megapixels
        self.crop_policy = self.rules.policy() | {"face": face, "margin": margin}
        self.lines: dict[str, Mapping[str, str]] = {}
        lines = read_csv(Path(csv), _COLUMNS)
        self.gender_of.check((line.cells["gender"] for line in lines), f"--csv {csv}")
        for line, cells in lines:
            if self.lines.setdefault(cells["file"], cells) is not cells:
                raise UserError(f"--csv {csv}: line {line}: {cells['file']} is there twice; leave one of the two out")
        check_folder(self.images)
        if not self.lines:
            raise UserError(f"--csv {csv}: holds no photos; give FairFace's labels")

    def items(self) -> list[str]:
        return sorted(self.lines)

    def read(self, item: str) -> SourceImage:
        cells = self.lines[item]
        group = cells.get("race") or None
        labels = Labels(age_of(cells["age"]), self.gender_of(cells["gender"]), group, {"source": item})
        if labels.age is None and labels.gender is None:
            raise Rejected("neither an age nor a gender")
        photo = read_or_reject(self.images / item, self.max_megapixels)
        crops = self._cut(photo.image, cells) if self.face else Crops(None, photo_jpeg(photo, self.rules.crop_size))
        sample = Sample(key_of(str(Path(item).with_suffix(""))), crops.face, crops.body, labels)
        return SourceImage(photo.data, [sample], missing=crops.missing)

    def _cut(self, image: np.ndarray, cells: Mapping[str, str]) -> Crops:
        height, width = image.shape[:2]
        face = box_of(cells, FACE_COLUMNS) or face_in_the_middle(width, height, self.margin)
        return cut_person(image, face, (0, 0, width, height), [], self.rules)


def face_in_the_middle(width: int, height: int, margin: float) -> Box:
    """Where the face lies in a FairFace photo that comes without a box.

    The aligner (dlib's face chips) put the face into a square in the middle, with ``margin`` of its side on every side,
    so that it takes up ``1 / (1 + 2 margin)`` of the photo; that square ends at eyebrows and chin and is therefore
    enlarged by ``FACE_SCALE``.
    """
    half = min(FACE_SCALE / (1 + 2 * margin), 1.0) * min(width, height) / 2
    return round(width / 2 - half), round(height / 2 - half), round(width / 2 + half), round(height / 2 + half)
