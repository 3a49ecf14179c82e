"""Counts the rows of a table that are no separate samples."""

from collections import Counter

from mivolo_lite.packing.sources.cells import BODY_COLUMNS, FACE_COLUMNS, has_value
from mivolo_lite.packing.sources.rows import Person


class RowNotes:
    """Counts people without labels, further rows of a person, and labels that differ between these."""

    def __init__(self) -> None:
        self.unlabelled, self.again = 0, 0
        self.differing: Counter[str] = Counter()
        self.example: dict[str, str] = {}

    def add(self, name: str, person: Person) -> None:
        """Count a person of an image."""
        self.unlabelled += not person.labelled
        self.again += len(person.again)
        for column, line in _differing(person).items():
            self.differing[column] += 1
            self.example.setdefault(column, f"{name}, lines {person.number} and {line}")

    def lines(self, is_blanked: bool) -> list[str]:
        """The counts as lines. ``is_blanked``: whether people without labels are blanked out of others' bodies."""
        notes = []
        if self.unlabelled:
            notes.append(
                f"{self.unlabelled} people without age and gender: no samples, but blanked out of others' bodies"
                if is_blanked
                else f"{self.unlabelled} people without labels: no samples"
            )
        if self.again:
            notes.append(
                f"{self.again} rows of people who have another row with nearly the same box: taken as one person"
            )
        notes += [
            f"{count} people whose rows differ in {column}: the first labelled row's is taken (as in "
            f"{self.example[column]})"
            for column, count in self.differing.items()
        ]
        return notes


def _differing(person: Person) -> dict[str, int]:
    """The line of each label that differs in another row of the person, by column."""
    boxes = (*FACE_COLUMNS, *BODY_COLUMNS)
    lines: dict[str, int] = {}
    for line in person.again:
        for column, cell in line.cells.items():
            if column not in boxes and has_value(cell) and cell != person.cells[column]:
                lines.setdefault(column, line.number)
    return lines
