"""Rows of one picture that mean the same person: two annotators, or a box without labels beside the labelled one."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from mivolo_lite.data.crops import Box, overlap
from mivolo_lite.data.sources.cells import BODY_COLUMNS, FACE_COLUMNS, box_of, is_absent
from mivolo_lite.data.sources.source import Rejected
from mivolo_lite.data.sources.table import Line

_SAME_FACE = 0.5
_SAME_BODY = 0.8
_MEETING_FACES = 0.1


class Boxes(NamedTuple):
    """A person's face and body in a picture, None where there is none that can be read."""

    face: Box | None
    body: Box | None

    @classmethod
    def of(cls, cells: Mapping[str, str]) -> "Boxes":
        return cls(_readable(cells, FACE_COLUMNS), _readable(cells, BODY_COLUMNS))

    def same_person(self, other: "Boxes") -> bool:
        """Whether both are of one person, measured by intersection over union.

        Faces of two people hardly overlap, bodies do: a child on an arm lies in its mother's box. So bodies decide
        where a face is missing, or where two annotators drew it differently.
        """
        bodies = overlap(self.body, other.body) if self.body and other.body else 0.0
        if not (self.face and other.face):
            return bodies >= _SAME_BODY
        faces = overlap(self.face, other.face)
        return faces >= _SAME_FACE or (faces >= _MEETING_FACES and bodies >= _SAME_BODY)


class Person(NamedTuple):
    """A person in a picture.

    Attributes:
        number: the line of the CSV that the labels come from: the first that has any.
        cells: its cells; where one says nothing, those of the person's other rows.
        boxes: the person's boxes.
        again: the other rows.
        labelled: whether any row has a label.
    """

    number: int
    cells: dict[str, str]
    boxes: Boxes
    again: Sequence[Line]
    labelled: bool


def people_in(lines: Sequence[Line], is_labelled: Callable[[Mapping[str, str]], bool]) -> list[Person]:
    """The people that the rows of one picture mean, in the order of their first rows."""
    found: list[tuple[Boxes, list[Line]]] = []
    equal: dict[Boxes, int] = {}  # spares comparing: some CSVs have dozens of rows with one box
    around: list[Box] = []
    for line in lines:
        boxes = Boxes.of(line.cells)
        left, top, right, bottom = outer = _around(boxes)
        place = equal.get(boxes) if any(boxes) else None
        if place is None:
            near = (
                n for n, (x0, y0, x1, y1) in enumerate(around) if x0 < right and left < x1 and y0 < bottom and top < y1
            )
            place = next((place for place in near if found[place][0].same_person(boxes)), len(found))
        if place == len(found):
            found.append((boxes, []))
            around.append(outer)
        equal[boxes] = place
        found[place][1].append(line)
    return [_person(boxes, rows, is_labelled) for boxes, rows in found]


def _around(boxes: Boxes) -> Box:
    """The box around a person's boxes; empty where there is none."""
    edges = list(zip(*(box for box in boxes if box), strict=True)) or [(0,)] * 4
    return min(edges[0]), min(edges[1]), max(edges[2]), max(edges[3])


def _person(boxes: Boxes, rows: list[Line], is_labelled: Callable[[Mapping[str, str]], bool]) -> Person:
    first = next((row for row in rows if is_labelled(row.cells)), rows[0])
    if len(rows) == 1:
        return Person(first.number, first.cells, boxes, (), is_labelled(first.cells))
    again = [row for row in rows if row is not first]
    cells = dict(first.cells)
    for columns in (FACE_COLUMNS, BODY_COLUMNS, *((column,) for column in cells)):  # a box is taken whole or not
        if all(is_absent(cells.get(column, "")) for column in columns):
            other = next((row.cells for row in again if not is_absent(row.cells.get(columns[0], ""))), {})
            cells |= {column: other[column] for column in columns if column in other}
    return Person(first.number, cells, Boxes.of(cells), again, is_labelled(first.cells))


def _readable(cells: Mapping[str, str], columns: tuple[str, ...]) -> Box | None:
    try:
        return box_of(cells, columns)
    except Rejected:
        return None
