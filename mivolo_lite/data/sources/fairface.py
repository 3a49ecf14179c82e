"""FairFace (Kärkkäinen and Joo, WACV 2021): one person a picture, the age as a group of years."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mivolo_lite.data.crops import Box, CropRules
from mivolo_lite.data.jpeg import MAX_MEGAPIXELS
from mivolo_lite.data.sample import Labels, Sample, key_of, parse_age, parse_gender
from mivolo_lite.data.sources.annotations import FACE_COLUMNS, check_folder, parse_box, read_csv
from mivolo_lite.data.sources.cutting import cut_person, keep_whole, read_or_reject
from mivolo_lite.data.sources.source import Picture, Rejected, Source
from mivolo_lite.errors import UserError

_COLUMNS = ("file", "age", "gender")
_AGE = re.compile(r"(?P<lo>\d+)(-(?P<hi>\d+)|(?P<open>\+))?|more than (?P<over>\d+)", re.IGNORECASE)

OLDEST = 100
"""Where the open group ``70+`` ends: hardly anybody in the pictures is older."""

FACE_SCALE = 1.3
"""How much larger than the aligner's square the face box is: from the forehead to just below the chin."""


class FairFaceSource(Source):
    """FairFace's pictures: each is the body of the person in its middle, with the face blanked out.

    Args:
        images: folder that the CSV's ``file`` is relative to.
        csv: ``file,age,gender[,race][,face_x0,face_y0,face_x1,face_y1]``; ages such as ``30-39``, ``70+`` or
            ``more than 70`` become ranges.
        face: also cut the face out: by the CSV's box where it has one, else by a centred square whose side is
            ``1.3 / (1 + 2 margin)`` of the picture's. Without it the picture as it is, face and all, is the body.
        margin: the margin that FairFace's pictures were cut with, 1.25 or 0.25 faces on every side.
        crop_size: largest side in pixels that a crop is stored with.
        max_megapixels: larger pictures are rejected before they are decoded.
    """

    def __init__(
        self,
        images: Path,
        csv: Path,
        face: bool = True,
        margin: float = 1.25,
        crop_size: int = 448,
        max_megapixels: float = MAX_MEGAPIXELS,
    ):
        if margin < 0:
            raise UserError(f"--margin {margin}: give the pictures' margin around the face, 1.25 or 0.25")
        self.images = Path(images)
        self.face = face
        self.margin = margin
        self.rules = CropRules(crop_size=crop_size)
        self.max_megapixels = max_megapixels
        self.crop_policy = self.rules.policy() | {"face": face, "margin": margin}
        self.lines: dict[str, Mapping[str, str]] = {}
        for line, cells in read_csv(Path(csv), _COLUMNS):
            if self.lines.setdefault(cells["file"], cells) is not cells:
                raise UserError(f"--csv {csv}: line {line}: {cells['file']} is there twice; leave one of the two out")
        check_folder(self.images)
        if not self.lines:
            raise UserError(f"--csv {csv}: holds no pictures; give FairFace's labels")

    def items(self) -> list[str]:
        return sorted(self.lines)

    def read(self, item: str) -> Picture:
        cells = self.lines[item]
        labels = _read_labels(cells, {"source": item})
        picture = read_or_reject(self.images / item, self.max_megapixels)
        crops = self._cut(picture.image, cells) if self.face else (None, keep_whole(picture, self.rules.crop_size))
        return Picture(picture.data, [Sample(key_of(str(Path(item).with_suffix(""))), *crops, labels)])

    def _cut(self, image: np.ndarray, cells: Mapping[str, str]) -> tuple[bytes | None, bytes | None]:
        height, width = image.shape[:2]
        face = parse_box(cells, FACE_COLUMNS) or face_in_the_middle(width, height, self.margin)
        return cut_person(image, face, (0, 0, width, height), [], self.rules)


def face_in_the_middle(width: int, height: int, margin: float) -> Box:
    """Where the face lies in a FairFace picture that comes without a box.

    The aligner (dlib's face chips) put the face into a square in the middle, with ``margin`` of its side on every side,
    so that it takes up ``1 / (1 + 2 margin)`` of the picture; that square ends at eyebrows and chin and is therefore
    enlarged by ``FACE_SCALE``.
    """
    half = min(FACE_SCALE / (1 + 2 * margin), 1.0) * min(width, height) / 2
    return round(width / 2 - half), round(height / 2 - half), round(width / 2 + half), round(height / 2 + half)


def _read_labels(cells: Mapping[str, str], extra: dict) -> Labels:
    """Age, gender and, where the CSV has it, race of a line. Raises Rejected where they cannot be meant."""
    age = _AGE.fullmatch(cells["age"])
    if age is None:
        raise Rejected(f"age {cells['age']!r} is not a group such as 30-39 or 70+")
    lo = int(age["lo"] or age["over"])
    hi = OLDEST if age["open"] or age["over"] else int(age["hi"] or lo)
    try:
        return Labels(parse_age((lo, hi)), parse_gender(cells["gender"]), cells.get("race") or None, extra)
    except ValueError as error:
        raise Rejected(str(error)) from None
