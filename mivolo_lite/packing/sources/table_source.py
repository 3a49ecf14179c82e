"""The base class of sources whose labels are the rows of a table."""

from array import array
from collections.abc import Mapping
from functools import lru_cache
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from mivolo_lite.connected import first_connected
from mivolo_lite.errors import UserError
from mivolo_lite.images.jpeg import MAX_MEGAPIXELS
from mivolo_lite.labels import FOLD, IDENTITY
from mivolo_lite.packing.crops import CropRules, body_around, check_cuts_nothing
from mivolo_lite.packing.decode import Photo, check_limit, read_bytes, read_photo
from mivolo_lite.packing.sources.cells import (
    BODY_COLUMNS,
    CORNERS,
    FACE_COLUMNS,
    IMAGE,
    LANDMARK_COLUMNS,
    SPLIT,
    GenderCodes,
    age_of,
    box_of,
    has_value,
    is_person,
    is_unknown,
    nameless_columns,
    numbers_of,
    other_labels,
)
from mivolo_lite.packing.sources.cutting import (
    Crops,
    aligned_jpeg,
    cut_person,
    rotated_jpeg,
    whole_jpeg,
)
from mivolo_lite.packing.sources.notes import RowNotes
from mivolo_lite.packing.sources.rows import Boxes, Person, people_in
from mivolo_lite.packing.sources.source import Source, SourceImage, split_name
from mivolo_lite.packing.sources.table import Table
from mivolo_lite.shards.rejects import Rejected
from mivolo_lite.shards.sample import Labels, Sample, key_of
from mivolo_lite.wording import first_few

Whole = Literal["auto", "face", "body", "no"]

_SOURCE = "source"
_KNOWN_COLUMNS = (
    IMAGE, "age", "gender", "group", SPLIT, _SOURCE, CORNERS, *FACE_COLUMNS, *BODY_COLUMNS, *LANDMARK_COLUMNS,
)  # fmt: skip


class TableSource(Source):
    """Crops of the people in a table.

    An item is a person, ``image#line of the table``, so that every rejected person is listed with the reason. People
    without labels are no samples, but are blanked out of the others' bodies. Rows of an image with
    nearly the same box are one person.

    Args:
        images: folder to which the table's image names are relative.
        table: the labels; its columns have the names of ``_KNOWN_COLUMNS``, and all others are labels of tasks.
        gender_of: parser of the column gender.
        whole: meaning of an image without boxes: a ``face``, a ``body``, or nobody (``no``); ``auto`` is face if the
            table has no box columns, and no otherwise.
        body_from_face: derive a body box from the face if there is none: three faces wide, from half a face above to
            four faces below it.
        age_offset: years to add to each age, for CSVs whose ages start at 0.
        max_megapixels: larger images are rejected before they are decoded.
        crops: see ``CropRules``.
    """

    def __init__(
        self,
        images: Path,
        table: Table,
        gender_of: GenderCodes,
        whole: Whole = "auto",
        body_from_face: bool = False,
        age_offset: int = 0,
        max_megapixels: float = MAX_MEGAPIXELS,
        **crops: Any,
    ):
        check_limit(max_megapixels)
        check_folder(images)
        self.images, self.gender_of = Path(images), gender_of
        self.table = table = table.with_column(IMAGE, map(_plain_path, table.columns[IMAGE]))
        self.rules = CropRules(**crops)
        self.body_from_face, self.max_megapixels, self.age_offset = body_from_face, max_megapixels, age_offset
        self.whole = whole if whole != "auto" else "no" if self._has_boxes() else "face"
        self.crop_policy = self.rules.policy() | {"body_from_face": body_from_face, "whole": self.whole}
        self._check_rules()
        names = list(table.columns[IMAGE])
        self.order = np.array(sorted(range(len(table)), key=names.__getitem__), dtype=np.int64)
        self.place = np.argsort(self.order)
        self.splits = self._splits()
        self.has_folds = self._check_folds()
        self.only_others = not {"age", "gender"} & table.columns.keys()
        self._find_people(names)

    def _check_rules(self) -> None:
        """Raise UserError for an option without effect, or without the columns that it needs."""
        location, columns = self.table.location, self.table.columns
        if self.rules.face_square and self.whole != "no":
            raise UserError(
                f"{location}: --face_square needs the faces' boxes, and whole images have none; "
                "`mivolo-lite find-faces` finds them"
            )
        if self.rules.face_square and (self.rules.align or CORNERS in columns):
            framed_by = "--align" if self.rules.align else f"the column {CORNERS}"
            raise UserError(f"{location}: {framed_by} frames the faces; leave --face_square out")
        if self.body_from_face and not self._guesses_bodies():
            raise UserError(
                f"{location}: --body_from_face needs the faces' boxes, and there are none to guess from; leave it out"
            )
        if not self._cuts():
            check_cuts_nothing(self.rules)
        if self.rules.align and not set(LANDMARK_COLUMNS) <= columns.keys():
            raise UserError(
                f"{location}: --align needs the columns {LANDMARK_COLUMNS[0]} to {LANDMARK_COLUMNS[-1]} of the "
                "landmarks; `pack csv --landmarks` takes other names"
            )

    def _has_boxes(self) -> bool:
        return not {*FACE_COLUMNS, *BODY_COLUMNS, CORNERS}.isdisjoint(self.table.columns)

    def _has_bodies(self) -> bool:
        return self.body_from_face or self.whole == "body" or not self.table.columns.keys().isdisjoint(BODY_COLUMNS)

    def _guesses_bodies(self) -> bool:
        """Whether bodies are derived from faces."""
        return set(FACE_COLUMNS) <= self.table.columns.keys()

    def _cuts(self) -> bool:
        """Whether the images are cropped."""
        return self._has_boxes() or self.rules.align or self.whole == "no"

    def _splits(self) -> tuple[str, ...]:
        cells = set(self.table.columns.get(SPLIT, ())) - {""}
        return tuple(sorted({split_name(cell, self.table.location) for cell in cells}))

    def _check_folds(self) -> bool:
        """Whether the table has folds. Raises UserError if one is no number."""
        known = {cell for cell in set(self.table.columns.get(FOLD, ())) if has_value(cell)}
        if words := sorted(cell for cell in known if not cell.removesuffix(".0").isdecimal()):
            raise UserError(
                f"{self.table.location}: fold {words[0]!r:.50} is no number; write folds as numbers, such as 0, 1, 2"
            )
        return bool(known)

    def _find_people(self, names: list[str]) -> None:
        """Find the rows that are samples, the people who stay in one split, and count what is left out."""
        samples, notes, groups = array("Q"), RowNotes(), []
        for name, group in groupby(map(int, self.order), names.__getitem__):
            rows = list(group)
            people = self._people(rows)
            samples.extend(sorted(person.row for person in people if person.labelled))
            for person in people:
                notes.add(name, person)
            if len(rows) > 1 and len(identities := _identities(people)) > 1:
                groups.append(identities)
        is_blanked = self._has_boxes() and self._has_bodies() and self.rules.blank != "none"
        self.samples, self.notes = samples, [*notes.lines(is_blanked), *self._columns_left_out()]
        # People who share an image go into one split, under the first of their names.
        self.together = first_connected((first, other) for first, *others in groups for other in others)
        if not samples:
            raise UserError(
                f"{self.table.location}: nobody in it has an age or a gender; {self._where_labels_may_be()}"
            )

    def _where_labels_may_be(self) -> str:
        """Advice for a table without labels."""
        others = self._other_columns
        if not self.only_others or not others:
            return "label the people to learn from"
        return f"if one of {first_few(others)} holds them, rename it, or name it with `pack csv --age` or `--gender`"

    @property
    def _other_columns(self) -> list[str]:
        """Names of the columns that are labels of tasks."""
        return [name for name in self.table.columns if name not in _KNOWN_COLUMNS]

    def _columns_left_out(self) -> list[str]:
        names = nameless_columns(self._other_columns)
        notes = [f"columns left out, rename them with letters, digits and _ alone: {', '.join(names)}"] if names else []
        if _SOURCE in self.table.columns:
            notes.append(f"column {_SOURCE} left out, since a sample's JSON names its image so: rename it")
        return notes

    def _people(self, rows: list[int]) -> list[Person]:
        return people_in(rows, [self.table.line(row) for row in rows], self._is_labelled, self.whole != "no")

    def _people_beside(self, row: int) -> list[Person]:
        """All people in the image of a row."""
        names, begin = self.table.columns[IMAGE], int(self.place[row])
        end, name = begin + 1, names[row]
        while begin and names[self.order[begin - 1]] == name:
            begin -= 1
        while end < len(self.order) and names[self.order[end]] == name:
            end += 1
        return self._people(self.order[begin:end].tolist())

    def _is_labelled(self, cells: Mapping[str, str]) -> bool:
        if not is_unknown(cells.get("age", "")) or self.gender_of.knows(cells.get("gender", "")):
            return True
        beside = () if self.only_others else (IDENTITY, FOLD)
        return self.whole != "no" and bool(other_labels(cells, (*_KNOWN_COLUMNS, *beside)))

    def items(self) -> list[str]:
        names, numbers = self.table.columns[IMAGE], self.table.numbers
        return [f"{names[row]}#{numbers[row]}" for row in self.samples]

    def read(self, item: str) -> SourceImage:
        name, _, number = item.rpartition("#")
        row = int(np.searchsorted(np.frombuffer(self.table.numbers, np.uint64), np.uint64(int(number))))
        people = self._people_beside(row)
        person = next(person for person in people if person.row == row)
        labels = self._labels(name, person.cells)
        split = self._split(person.cells)
        others = [Boxes.of(other.cells) for other in people if other is not person]
        data, crops = self._read(name, person.cells, others)
        sample = Sample(key_of(str(Path(name).with_suffix(""))), crops.face, crops.body, labels)
        who = min(_identities(people), default=None)
        together = None if who is None else self.together.get(who, who).encode()
        return SourceImage(data, [sample], together, crops.missing, split)

    def _read(self, name: str, cells: Mapping[str, str], others: list[Boxes]) -> tuple[bytes, Crops]:
        """The bytes of an image file, and a person's crops."""
        if self._is_whole(cells):
            data = read_bytes(self.images / name)
            jpeg = whole_jpeg(data, self.rules, self.max_megapixels)
            return data, Crops(jpeg, None) if self.whole == "face" else Crops(None, jpeg)
        photo = _read_cached(self.images / name, self.max_megapixels)
        return photo.data, self._crops(photo, cells, others)

    def _is_whole(self, cells: Mapping[str, str]) -> bool:
        """Whether the whole image is the face or the body of a person."""
        has_box = box_of(cells, FACE_COLUMNS) or box_of(cells, BODY_COLUMNS) or cells.get(CORNERS)
        return self.whole != "no" and not has_box and not self.rules.align

    def _split(self, cells: Mapping[str, str]) -> str | None:
        if not self.splits:
            return None
        if not cells[SPLIT]:
            raise Rejected("its row names no split")
        return split_name(cells[SPLIT], self.table.location)

    def _labels(self, name: str, cells: Mapping[str, str]) -> Labels:
        """A person's labels. Raises Rejected if they are invalid."""
        group = cells.get("group", "")
        extra = {_SOURCE: name} | other_labels(cells, _KNOWN_COLUMNS)
        age, gender = age_of(cells.get("age", ""), self.age_offset), self.gender_of(cells.get("gender", ""))
        return Labels(age, gender, group if has_value(group) else None, extra)

    def _crops(self, photo: Photo, cells: Mapping[str, str], others: list[Boxes]) -> Crops:
        face, body = box_of(cells, FACE_COLUMNS), box_of(cells, BODY_COLUMNS)
        if body is None and face is not None and self.body_from_face:
            body = body_around(face)
        special = self._turned_face(photo, cells)
        if special is not None:
            return Crops(special, cut_person(photo.image, None, body, others, self.rules).body if body else None)
        return cut_person(photo.image, face, body, others, self.rules)

    def _turned_face(self, photo: Photo, cells: Mapping[str, str]) -> bytes | None:
        """The face by its landmarks or its rotated box, None if neither is used."""
        if self.rules.align:
            landmarks = numbers_of([cells[column] for column in LANDMARK_COLUMNS], "landmarks")
            return aligned_jpeg(photo.image, np.array(landmarks).reshape(5, 2), self.rules)
        if cells.get(CORNERS):
            corners = numbers_of(cells[CORNERS].split(";"), CORNERS)
            if len(corners) != 8:
                raise Rejected(f"{CORNERS}: {cells[CORNERS]:.80} is not four corners")
            return rotated_jpeg(photo.image, corners, self.rules)
        return None


def _plain_path(name: str) -> str:
    """``a/1.jpg`` for ``./a//1.jpg``: two spellings are one image."""
    return str(PurePosixPath(name)) if name else name


def check_folder(images: Path) -> None:
    """Raise UserError if the images' folder does not exist."""
    if not Path(images).is_dir():
        raise UserError(f"--images {images}: no such folder; give the folder that the labels' names are relative to")


def _identities(people: list[Person]) -> set[str]:
    """The identities in an image."""
    names = (
        row.get(IDENTITY, "") for person in people for row in (person.cells, *(line.cells for line in person.again))
    )
    return {name for name in names if is_person(name)}


@lru_cache(maxsize=1)
def _read_cached(path: Path, max_megapixels: float) -> Photo:
    """The photo, cached: the people of a photo are consecutive items."""
    return read_photo(path, max_megapixels)
