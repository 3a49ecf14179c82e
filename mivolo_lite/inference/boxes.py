"""Boxes from a file in place of detectors': of faces, bodies or both."""

import os
from collections import defaultdict
from pathlib import Path

from mivolo_lite.errors import UserError
from mivolo_lite.inference.people import Located
from mivolo_lite.packing.sources.cells import BODY_COLUMNS, FACE_COLUMNS, IMAGE, box_of
from mivolo_lite.packing.sources.columns import find_columns
from mivolo_lite.packing.sources.rows import people_in
from mivolo_lite.packing.sources.source import Rejected
from mivolo_lite.packing.sources.table import Line, read_table

_PREDICTED_BODY = ("body_x0", "body_y0", "body_x1", "body_y1")  # as ``predict`` itself writes them


class BoxesFile:
    """The people of images as a table has them.

    Args:
        path: CSV, JSON lines or Parquet with a column that names the image, ``face_x0`` to ``face_y1`` and, where there
            are bodies, ``person_x0`` to ``person_y1`` or ``body_x0`` to ``body_y1``: corners in pixels of the upright
            photo. Rows of an image with nearly the same box are one person, as in packing. Of videos, the column
            ``frame`` counts from 0.
        option: the option that names the file.

    Raises:
        UserError: no such file, no boxes in it, or a cell that is no number.
    """

    def __init__(self, path: Path, option: str = "--boxes") -> None:
        table = read_table(path, option=option)
        names = find_columns(table, {}) if "source" not in table.columns else {IMAGE: "source"}
        names |= dict(zip(BODY_COLUMNS, _PREDICTED_BODY, strict=True)) if _PREDICTED_BODY[0] in table.columns else {}
        table = table.renamed(names)
        if not {FACE_COLUMNS[0], BODY_COLUMNS[0]} & set(table.columns):
            raise UserError(f"{table.location}: has no column {FACE_COLUMNS[0]} and no {BODY_COLUMNS[0]}")
        self.location = table.location
        self._lines: dict[tuple[str, str], list[Line]] = defaultdict(list)
        for line in table:
            self._lines[os.path.normpath(line.cells[IMAGE]), line.cells.get("frame", "")].append(line)

    def __call__(self, source: str, frame: int | None = None) -> list[Located]:
        """The people of an image, by its whole address or its end: ``a/b.jpg`` of the table is ``/photos/a/b.jpg``.

        Raises:
            UserError: a row's box is not four numbers in pixels.
        """
        lines = self._lines_of(source, frame)
        people = people_in(range(len(lines)), lines, lambda cells: True, one_without_boxes=False)
        try:
            boxes = [(box_of(one.cells, FACE_COLUMNS), box_of(one.cells, BODY_COLUMNS)) for one in people]
        except Rejected as reason:
            raise UserError(f"{self.location}: {source}: {reason}") from None
        return [Located(face, body) for face, body in boxes if face or body]

    def _lines_of(self, source: str, frame: int | None) -> list[Line]:
        number = "" if frame is None else str(frame)
        parts = Path(os.path.normpath(source)).parts
        for start in range(len(parts)):
            if lines := self._lines.get((str(Path(*parts[start:])), number)):
                return lines
        return []
