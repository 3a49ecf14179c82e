"""Boxes of faces, bodies or both from a file, in place of detectors."""

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from mivolo_lite.credentials import without_credentials
from mivolo_lite.errors import UserError
from mivolo_lite.inference.people import Located
from mivolo_lite.inference.rows import BOX_COLUMNS
from mivolo_lite.inference.sources import is_video
from mivolo_lite.packing.crops import Box, body_around
from mivolo_lite.packing.sources.cells import BODY_COLUMNS, FACE_COLUMNS, IMAGE, box_of, is_absent
from mivolo_lite.packing.sources.columns import find_columns
from mivolo_lite.packing.sources.rows import people_in
from mivolo_lite.packing.sources.table import Line, read_table
from mivolo_lite.paths import as_unicode, is_url
from mivolo_lite.shards.rejects import Rejected


class BoxesFile:
    """The people of images in a table.

    Args:
        path: CSV, JSON lines or Parquet with a column for the image, ``face_x0`` to ``face_y1`` and, for bodies,
            ``person_x0`` to ``person_y1`` or ``body_x0`` to ``body_y1``: corners in pixels of the upright photo. Rows
            of an image with nearly the same box are one person, as in packing. For videos, the column ``frame`` counts
            from 0; for images it is ignored.

    Attributes:
        digest: identifies the table.

    Raises:
        UserError: no such file, no boxes in it, or a row's box is not four numbers in pixels.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        table = read_table(path, option="--boxes")
        names = find_columns(table, {}) if "source" not in table.columns else {IMAGE: "source"}
        self._predicted = BOX_COLUMNS["body"][0] in table.columns  # a table of ``predict`` itself
        names |= dict(zip(BODY_COLUMNS, BOX_COLUMNS["body"], strict=True)) if self._predicted else {}
        table = table.renamed(names)
        if not {FACE_COLUMNS[0], BODY_COLUMNS[0]} & set(table.columns):
            hint = "; give predictions.csv, which has them" if "face" in table.columns else ""
            raise UserError(f"{table.location}: has no column {FACE_COLUMNS[0]} and no {BODY_COLUMNS[0]}{hint}")
        self.location, self.digest = table.location, repr(table)
        self._lines: dict[str, dict[int | None, list[Line]]] = defaultdict(lambda: defaultdict(list))
        for line in table:
            try:
                for columns in (FACE_COLUMNS, BODY_COLUMNS):
                    _check_corners(box_of(line.cells, columns), columns[0])
                frame = _frame_of(line.cells.get("frame", ""))
            except Rejected as reason:
                raise UserError(f"{self.location}: line {line.number}: {reason}") from None
            self._lines[as_unicode(os.path.normpath(line.cells[IMAGE]))][frame].append(line)

    def __call__(self, source: str, frame: int | None = None) -> list[Located]:
        """The people of an image, or of a frame of a video.

        Args:
            source: the address, which the table has whole or as an ending: ``a/b.jpg`` is ``/photos/a/b.jpg``.
            frame: of a video.
        """
        name = self.name_of(source)
        frames = {} if name is None else self._lines[name]
        lines = [line for of_frame in frames.values() for line in of_frame] if frame is None else frames.get(frame, [])
        people = people_in(range(len(lines)), lines, lambda cells: True, one_without_boxes=False)
        boxes = [(box_of(one.cells, FACE_COLUMNS), box_of(one.cells, BODY_COLUMNS)) for one in people]
        return [Located(face, self._found_body(face, body)) for face, body in boxes if face or body]

    def name_of(self, source: str) -> str | None:
        """The table's name of an image or a video; None if it has none."""
        address = as_unicode(os.path.normpath(source))
        parts = Path(address if is_url(source) else as_unicode(os.path.abspath(source))).parts
        names = (address, *(str(Path(*parts[start:])) for start in range(len(parts))))
        return next((name for name in names if name in self._lines), None)

    def check(self, sources: Iterable[str]) -> str | None:
        """A sentence on the images and videos that the table lacks; None if it has all.

        Raises:
            UserError: it has none of them, a name matches several of them, or a video's box has no frame.
        """
        owners: dict[str, str] = {}
        missing = []
        names = {source if is_url(source) else os.path.abspath(source): self.name_of(source) for source in sources}
        for source, name in names.items():
            if name is None:
                missing.append(source)
            elif owners.setdefault(name, source) != source:
                raise UserError(
                    f"{self.location}: {name} may be {owners[name]} or {source}; write more of the path in the table"
                )
            elif is_video(source) and any(map(_has_box, self._lines[name].get(None, ()))):
                raise UserError(
                    f"{self.location}: a box of the video {name} has no frame; write it, from 0, as `frame`"
                )
        if not missing:
            return None
        if not owners:
            first = next(iter(self._lines), None)
            shown = "has no rows" if first is None else f"its first name is {first}"
            raise UserError(f"{self.location}: names none of the images; {shown}, the first image is {missing[0]}")
        return without_credentials(
            f"{self.location} names {len(owners)} of {len(names)} images; nobody is looked for in the others, the "
            f"first of which is {missing[0]}"
        )

    def _found_body(self, face: Box | None, body: Box | None) -> Box | None:
        """The body; None if an earlier ``predict`` guessed it from the face: guessed ones are not blanked."""
        if not self._predicted or face is None or body is None:
            return body
        return None if body == body_around(face) else body


def _check_corners(box: Box | None, column: str) -> None:
    """Raise Rejected for a box without an area, for example one with width and height instead of a corner."""
    if box is not None and (box[2] <= box[0] or box[3] <= box[1]):
        edges = ",".join(f"{edge:g}" for edge in box)
        raise Rejected(f"{column} ...: {edges} ends before it begins; give two corners, not width and height")


def _has_box(line: Line) -> bool:
    return any(box_of(line.cells, columns) for columns in (FACE_COLUMNS, BODY_COLUMNS))


def _frame_of(cell: str) -> int | None:
    """A frame's number: ``7``, or ``7.0`` from a table with gaps. Raises Rejected for anything else."""
    try:
        return None if is_absent(cell) else int(float(cell))
    except (ValueError, OverflowError):
        raise Rejected(f"frame {cell!r:.50} is no number") from None
