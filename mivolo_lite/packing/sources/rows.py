"""Merges rows of one photo that describe the same person, by two annotators or with and without labels."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from mivolo_lite.packing.crops import Box, box_iou
from mivolo_lite.packing.sources.cells import BODY_COLUMNS, FACE_COLUMNS, box_of, is_absent
from mivolo_lite.packing.sources.table import Line
from mivolo_lite.shards.rejects import Rejected

_SAME_FACE = 0.5
_SAME_BODY = 0.8
_MEETING_FACES = 0.1


class Boxes(NamedTuple):
    """A person's face and body box in a photo, None if absent or invalid."""

    face: Box | None
    body: Box | None

    @classmethod
    def of(cls, cells: Mapping[str, str]) -> "Boxes":
        return cls(_readable(cells, FACE_COLUMNS), _readable(cells, BODY_COLUMNS))

    def same_person(self, other: "Boxes") -> bool:
        """Whether both are of one person, by intersection over union.

        Faces of two people hardly overlap, but bodies do, such as those of a mother and a child in her arms. So bodies
        decide only if a face is missing, or if two annotators drew it differently.
        """
        bodies = box_iou(self.body, other.body) if self.body and other.body else 0.0
        if not (self.face and other.face):
            return bodies >= _SAME_BODY
        faces = box_iou(self.face, other.face)
        return faces >= _SAME_FACE or (faces >= _MEETING_FACES and bodies >= _SAME_BODY)


class Person(NamedTuple):
    """A person in a photo.

    Attributes:
        row: index of the person's first row with a label.
        number: its line number.
        cells: its cells; empty ones are filled from the person's other rows.
        again: the other rows.
        labelled: whether any row has a label.
    """

    row: int
    number: int
    cells: dict[str, str]
    again: list[Line]
    labelled: bool


def people_in(
    rows: Sequence[int],
    lines: Sequence[Line],
    is_labelled: Callable[[Mapping[str, str]], bool],
    one_without_boxes: bool,
) -> list[Person]:
    """The people in the rows of one photo, in the order of their first rows.

    Args:
        rows: their numbers in the table.
        lines: their cells.
        is_labelled: whether cells hold any label.
        one_without_boxes: whether rows without boxes are one person, whose face or body is the photo.
    """
    if len(lines) == 1:
        return [Person(rows[0], lines[0].number, lines[0].cells, [], is_labelled(lines[0].cells))]
    people: list[tuple[Boxes, list[int]]] = []
    equal: dict[tuple, int] = {}  # avoids comparisons: some CSVs have dozens of rows with one box
    for position, line in enumerate(lines):
        boxes = Boxes.of(line.cells)
        index = equal.get(boxes) if any(boxes) or one_without_boxes else len(people)
        if index is None:
            matches = (index for index, (known_boxes, _) in enumerate(people) if known_boxes.same_person(boxes))
            index = next(matches, len(people))
        if index == len(people):
            people.append((boxes, []))
        equal[boxes] = index
        people[index][1].append(position)
    return [_person(positions, rows, lines, is_labelled) for _, positions in people]


def _person(
    positions: list[int], rows: Sequence[int], lines: Sequence[Line], is_labelled: Callable[[Mapping[str, str]], bool]
) -> Person:
    chosen = next((position for position in positions if is_labelled(lines[position].cells)), positions[0])
    again = [lines[position] for position in positions if position != chosen]
    cells = dict(lines[chosen].cells)
    for columns in (FACE_COLUMNS, BODY_COLUMNS, *((column,) for column in cells)):  # a box comes from one row
        if all(is_absent(cells.get(column, "")) for column in columns):
            donor = next((row.cells for row in again if not is_absent(row.cells.get(columns[0], ""))), {})
            cells |= {column: donor[column] for column in columns if column in donor}
    return Person(rows[chosen], lines[chosen].number, cells, again, is_labelled(lines[chosen].cells))


def _readable(cells: Mapping[str, str], columns: tuple[str, ...]) -> Box | None:
    try:
        return box_of(cells, columns)
    except Rejected:
        return None
