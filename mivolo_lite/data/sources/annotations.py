"""Pictures with MiVOLO's annotation CSV: several people a picture, each with labels, a face box and a body box."""

import csv as csv_format
import math
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from mivolo_lite.data.crops import Box, CropRules
from mivolo_lite.data.jpeg import MAX_MEGAPIXELS
from mivolo_lite.data.labels import IDENTITY
from mivolo_lite.data.pictures import WholePicture
from mivolo_lite.data.sample import Labels, Sample, key_of, parse_age, parse_gender
from mivolo_lite.data.sources.cutting import cut_person, read_or_reject
from mivolo_lite.data.sources.source import Picture, Rejected, Source
from mivolo_lite.errors import UserError

FACE_COLUMNS = ("face_x0", "face_y0", "face_x1", "face_y1")
BODY_COLUMNS = ("person_x0", "person_y0", "person_x1", "person_y1")
_COLUMNS = ("img_name", "age", "gender", *FACE_COLUMNS)

_ABSENT = ("", "-1", "-1.0")
_GENDERS_BY_NUMBER = {"0": "M", "1": "F"}


class Line(NamedTuple):
    """A line of a CSV: its number, and its cells by column."""

    number: int
    cells: dict[str, str]


class AnnotationSource(Source):
    """Cuts annotated people out of whole pictures, by the rules of MiVOLO's training reader.

    An item is a person, ``picture#line of the CSV``, so that every person that cannot be used is listed with the
    reason. People without age and gender are no samples, but they are blanked out of the others' bodies.

    Args:
        images: folder that the CSV's ``img_name`` is relative to.
        csv: ``img_name,age,gender,face_x0,face_y0,face_x1,face_y1[,person_x0,person_y0,person_x1,person_y1]``: corners
            in pixels of the upright picture, age a number or ``lo;hi``, gender M or F, -1 for whatever is absent. What
            other columns say, numbers or words, goes into the samples' JSON, where tasks find it.
        crop_size: largest side in pixels that a crop is stored with.
        body_from_face: guess a body box for people who have only a face: three faces wide, from half a face above to
            four faces below it.
        max_megapixels: larger pictures are rejected before they are decoded.
    """

    def __init__(
        self,
        images: Path,
        csv: Path,
        crop_size: int = 448,
        body_from_face: bool = False,
        max_megapixels: float = MAX_MEGAPIXELS,
    ):
        self.images = Path(images)
        self.rules = CropRules(crop_size=crop_size)
        self.body_from_face = body_from_face
        self.max_megapixels = max_megapixels
        self.crop_policy = self.rules.policy() | {"body_from_face": body_from_face}
        self.people: dict[str, dict[int, dict[str, str]]] = defaultdict(dict)
        for number, cells in read_csv(Path(csv), _COLUMNS):
            self.people[cells["img_name"]][number] = cells
        check_folder(self.images)
        if not self.items():
            raise UserError(f"--csv {csv}: nobody in it has an age or a gender; label the people to learn from")

    def items(self) -> list[str]:
        return [
            f"{name}#{number}"
            for name in sorted(self.people)
            for number, cells in self.people[name].items()
            if cells["age"] not in _ABSENT or cells["gender"] not in _ABSENT
        ]

    def read(self, item: str) -> Picture:
        name, _, number = item.rpartition("#")
        cells = self.people[name][int(number)]
        labels = _read_labels(cells, {"source": name} | other_labels(cells))
        face, body = parse_box(cells, FACE_COLUMNS), parse_box(cells, BODY_COLUMNS)
        if body is None and face is not None and self.body_from_face:
            body = body_around(face)
        others = [person for person in self.people[name].values() if person is not cells]
        picture = _read_once(self.images / name, self.max_megapixels)
        crops = cut_person(picture.image, face, body, _boxes(others), self.rules)
        return Picture(picture.data, [Sample(key_of(str(Path(name).with_suffix(""))), *crops, labels)])


def read_csv(path: Path, columns: tuple[str, ...]) -> list[Line]:
    """The lines of a CSV whose first line names the columns, without blanks around the cells.

    Raises:
        UserError: no such file, no text, or a column missing.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv_format.reader(file)
            header = [name.strip() for name in next(reader, ())]
            missing = [column for column in columns if column not in header]
            if missing:
                raise UserError(f"--csv {path}: column {missing[0]} is missing; the first line must name the columns")
            rows = (row + [""] * (len(header) - len(row)) for row in reader if row)
            return [Line(reader.line_num, dict(zip(header, map(str.strip, row), strict=False))) for row in rows]
    except OSError as error:
        raise UserError(f"--csv {path}: {error.strerror}; give the file with the labels") from None
    except (UnicodeDecodeError, csv_format.Error) as error:
        raise UserError(f"--csv {path}: not a CSV in UTF-8 ({error}); save it as one") from None


def check_folder(images: Path) -> None:
    """Raises UserError where the pictures' folder does not exist."""
    if not images.is_dir():
        raise UserError(f"--images {images}: no such folder; give the folder that the CSV's names are relative to")


def parse_box(cells: Mapping[str, str], columns: tuple[str, ...]) -> Box | None:
    """The box in four columns; None where all of them are -1, empty or not there. Raises Rejected if unreadable."""
    edges = [cells.get(column, "") for column in columns]
    if all(edge in _ABSENT for edge in edges):
        return None
    try:
        x0, y0, x1, y1 = (int(float(edge)) for edge in edges)
    except (ValueError, OverflowError):
        raise Rejected(f"{columns[0]} to {columns[-1]}: {','.join(edges)} is not a box") from None
    return x0, y0, x1, y1


def body_around(face: Box) -> Box:
    """A body box guessed from a face box: three faces wide, from half a face above to four faces below it.

    For somebody upright and facing the camera that is head, arms and hips; it is clipped to the picture on cutting.
    """
    x0, y0, x1, y1 = face
    width, height = x1 - x0, y1 - y0
    return x0 - width, y0 - height // 2, x1 + width, y1 + 4 * height


def other_labels(cells: Mapping[str, str]) -> dict[str, str | float]:
    """What the columns that have no meaning of their own say, by their names. ``nan`` says nothing."""
    own = (*_COLUMNS, *BODY_COLUMNS, "source")
    said = {
        column: cell if column == IDENTITY else _number_or_word(cell)  # as numbers, 007 and 7 would be one person
        for column, cell in cells.items()
        if column not in own and column.isidentifier() and cell not in _ABSENT
    }
    return {column: value for column, value in said.items() if isinstance(value, str) or math.isfinite(value)}


def _number_or_word(cell: str) -> str | float:
    try:
        return float(cell)
    except ValueError:
        return cell


def _read_labels(cells: Mapping[str, str], extra: dict) -> Labels:
    """Age and gender of a line: the age a number, ``lo;hi`` or absent. Raises Rejected for anything else."""
    age, gender = (None if cells[column] in _ABSENT else cells[column] for column in ("age", "gender"))
    try:
        return Labels(
            parse_age(age.split(";") if age and ";" in age else age),
            parse_gender(_GENDERS_BY_NUMBER.get(gender, gender)),
            extra=extra,
        )
    except ValueError as error:
        raise Rejected(str(error)) from None


def _boxes(people: list[Mapping[str, str]]) -> list[Box]:
    """All boxes that can be read; a line with an unreadable one is rejected when it is its turn."""
    boxes = []
    for cells in people:
        for columns in (FACE_COLUMNS, BODY_COLUMNS):
            with suppress(Rejected):
                boxes.append(parse_box(cells, columns))
    return [box for box in boxes if box is not None]


@lru_cache(maxsize=1)
def _read_once(path: Path, max_megapixels: float) -> WholePicture:
    """The picture; its people follow each other, so that it is decoded once for all of them."""
    return read_or_reject(path, max_megapixels)
