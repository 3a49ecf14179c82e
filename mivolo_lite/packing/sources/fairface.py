"""FairFace (Kärkkäinen and Joo, WACV 2021): one person a photo, the age as a group of years."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mivolo_lite.errors import UserError
from mivolo_lite.packing.crops import Box
from mivolo_lite.packing.decode import Photo
from mivolo_lite.packing.sources.cells import FACE_COLUMNS, IMAGE, box_of
from mivolo_lite.packing.sources.columns import read_labels
from mivolo_lite.packing.sources.cutting import Crops, cut_person
from mivolo_lite.packing.sources.rows import Boxes
from mivolo_lite.packing.sources.table import Table
from mivolo_lite.packing.sources.table_source import TableSource
from mivolo_lite.shards.rejects import Rejected

FACE_SCALE = 1.3
"""Side of the face box, from the forehead to just below the chin, in sides of the aligner's square."""

MARGINS = {448: 1.25, 224: 0.25}
"""The margins around the face, in sides of the face, of the published photos by their side in pixels."""


class FairFaceSource(TableSource):
    """FairFace's photos: the face is the middle, the body is the photo with the face blanked out.

    Args:
        csv: ``file,age,gender[,race][,face_x0,face_y0,face_x1,face_y1]``; ages such as ``30-39``, ``70+`` or
            ``more than 70`` become ranges.
        gender_codes: meaning of cells of the column gender other than Male and Female, such as 0=M,1=F.
        delimiter: comma, semicolon, tab or bar; auto determines it from the first line.
        face: cut the face out: by the CSV's box where it has one, else by a centred square whose side is
            ``1.3 / (1 + 2 margin)`` of the photo's. Without it the photo as it is, face and all, is the body.
        margin: margin of the photos around the face on every side, in sides of the face. By default 1.25 for photos of
            448 px and 0.25 for those of 224 px, as published; others are rejected. For face crops use ``pack csv``.
    """

    def __init__(
        self,
        images: Path,
        csv: Path,
        gender_codes: str = "",
        delimiter: str = "auto",
        face: bool = True,
        margin: float | None = None,
        **options: Any,
    ):
        if margin is not None and not 0 <= margin < math.inf:
            raise UserError(f"--margin {margin}: give the photos' margin around the face, 1.25 or 0.25")
        self.face, self.margin = face, margin
        required = ("age", "gender")
        table, gender_of, described = read_labels(Path(csv), delimiter, gender_codes, required=required)
        _check_once(table)
        self.preface = described + self._describe_cut()
        super().__init__(images, table, gender_of, whole="body", **options)
        self.crop_policy = self.rules.policy() | {"face": face, "margin": "published" if margin is None else margin}

    def _describe_cut(self) -> list[str]:
        """Description of the crop from the middle of the photos."""
        if not self.face:
            return []
        margins = MARGINS if self.margin is None else {"all": self.margin}
        shares = (f"{side}{' px' * (side != 'all')}: {_face_share(margin):.0%}" for side, margin in margins.items())
        return [f"faces are cut from the middle of the photos ({', '.join(shares)} of the side)"]

    def _guesses_bodies(self) -> bool:
        return False  # the photo is the body

    def _cuts(self) -> bool:
        return self.face

    def _is_whole(self, cells: Mapping[str, str]) -> bool:
        return not self.face

    def _crops(self, photo: Photo, cells: Mapping[str, str], others: list[Boxes]) -> Crops:
        height, width = photo.image.shape[:2]
        face = box_of(cells, FACE_COLUMNS) or face_in_the_middle(width, height, self._margin_of(photo.image))
        return cut_person(photo.image, face, (0, 0, width, height), [], self.rules)

    def _margin_of(self, image: np.ndarray) -> float:
        height, width = image.shape[:2]
        margin = self.margin if self.margin is not None else MARGINS.get(width) if width == height else None
        if margin is None:
            raise Rejected(
                f"{width}x{height} pixels: FairFace's photos have 448x448 or 224x224; give --margin (0.25 or 1.25), or "
                "use `pack csv` for images that are faces already"
            )
        return margin


def _check_once(table: Table) -> None:
    """Raise UserError where a photo has two rows, or there are none."""
    if not len(table):
        raise UserError(f"{table.location}: holds no photos; give FairFace's labels")
    known: set[str] = set()
    for number, name in zip(table.numbers, table.columns[IMAGE], strict=True):
        if name in known:
            raise UserError(f"{table.location}: line {number}: {name} is there twice; leave one of the two out")
        known.add(name)


def _face_share(margin: float) -> float:
    """The face's side as a share of the photo's."""
    return min(FACE_SCALE / (1 + 2 * margin), 1.0)


def face_in_the_middle(width: int, height: int, margin: float) -> Box:
    """The face box in a FairFace photo without a published box.

    The aligner (dlib's face chips) puts the face into a square in the middle, with a margin of ``margin`` times its
    side, so that it takes up ``1 / (1 + 2 margin)`` of the photo. The square ends at eyebrows and chin, and is
    therefore enlarged by ``FACE_SCALE``.
    """
    half = _face_share(margin) * min(width, height) / 2
    return round(width / 2 - half), round(height / 2 - half), round(width / 2 + half), round(height / 2 + half)
