"""Face boxes for a table of labels that has none, so that its photos are packed as ``predict`` will cut photos."""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mivolo_lite.errors import UserError
from mivolo_lite.files import result_folder, written_aside
from mivolo_lite.inference.windows import Detection
from mivolo_lite.packing.crops import Box
from mivolo_lite.packing.decode import UnusablePhoto, read_photo
from mivolo_lite.packing.sources.cells import BODY_COLUMNS, CORNERS, FACE_COLUMNS, IMAGE
from mivolo_lite.packing.sources.columns import find_columns
from mivolo_lite.packing.sources.labelled import check_folder
from mivolo_lite.packing.sources.table import Table, read_table
from mivolo_lite.shards.rejects import REJECTED_FILE, write_rejected

LABELS_FILE = "labels.csv"


@dataclass
class Found:
    """What became of the rows of a table.

    Attributes:
        faces: rows that have a box now.
        several: photos that show other faces besides.
        rejected: photos that are left out, each with the reason.
    """

    faces: int = 0
    several: int = 0
    rejected: list[dict[str, str]] = field(default_factory=list)


def find_faces(
    images: Path,
    labels: Path,
    out: Path,
    detector: Callable[[np.ndarray], Sequence[Detection]],
    path: str = "",
    delimiter: str = "auto",
) -> Found:
    """Write ``labels.csv``, the table with the boxes of the faces, and ``rejected.jsonl``.

    The labels belong to the largest and most central face of a photo. Its other faces become rows without labels,
    which ``pack`` blanks out of bodies.

    Args:
        images: folder that the table's names of photos are relative to.
        labels: the table: CSV, JSON lines or Parquet, a row a photo.
        out: folder of the two files.
        detector: finds the faces of a photo (H, W, 3) uint8 RGB.
        path: column with the photos' names; a usual one by default.
        delimiter: what separates a CSV's cells.

    Raises:
        UserError: the table cannot be read, has boxes already or would be replaced, or no photo of it shows a face.
    """
    check_folder(images)
    table = read_table(labels, delimiter)
    name_column = find_columns(table, {IMAGE: path})[IMAGE]
    if boxes := [column for column in (*FACE_COLUMNS, *BODY_COLUMNS, CORNERS) if column in table.columns]:
        raise UserError(f"{table.location}: has boxes already ({', '.join(boxes)}); give it to `pack csv` as it is")
    result_folder(out, [LABELS_FILE, REJECTED_FILE], [labels])
    result = Found()
    with written_aside(out / LABELS_FILE) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*table.columns, *FACE_COLUMNS])
        writer.writeheader()
        for cells in tqdm(_rows_of_photos(table, name_column, result), desc="finding faces", leave=False, disable=None):
            writer.writerows(_with_boxes(cells, name_column, images, detector, result))
        if not result.faces:
            first = result.rejected[0] if result.rejected else {"image": "no row", "reason": "the table is empty"}
            raise UserError(f"{table.location}: no face in any photo; the first: {first['image']}: {first['reason']}")
    write_rejected(out / REJECTED_FILE, result.rejected)
    return result


def _rows_of_photos(table: Table, name_column: str, result: Found) -> list[dict[str, str]]:
    """The row of each photo. Photos of several rows are left out: which face is whose, only boxes could say."""
    rows: dict[str, list[dict[str, str]]] = {}
    for line in table:
        rows.setdefault(line.cells[name_column], []).append(line.cells)
    for name, of_photo in rows.items():
        if len(of_photo) > 1:
            result.rejected.append({"image": name, "reason": f"{len(of_photo)} rows name it: which face is whose?"})
    return [of_photo[0] for of_photo in rows.values() if len(of_photo) == 1]


def _with_boxes(
    cells: dict[str, str],
    name_column: str,
    images: Path,
    detector: Callable[[np.ndarray], Sequence[Detection]],
    result: Found,
) -> Iterator[dict[str, str]]:
    """The row with its face's box, then a row for each other face; none where there is no face."""
    name = cells[name_column]
    try:
        image = read_photo(images / name).image
    except UnusablePhoto as reason:
        result.rejected.append({"image": name, "reason": str(reason)})
        return
    faces = by_prominence((face.box for face in detector(image)), image.shape[1], image.shape[0])
    if not faces:
        result.rejected.append({"image": name, "reason": "no face found"})
        return
    result.faces += 1
    result.several += len(faces) > 1
    yield cells | _box_cells(faces[0])
    yield from ({name_column: name} | _box_cells(face) for face in faces[1:])


def by_prominence(faces: Iterable[Box], width: int, height: int) -> list[Box]:
    """Boxes, the largest and most central first: at a quarter of the photo's width from its middle, a face counts half.

    Args:
        faces: in a photo of ``width`` times ``height`` pixels.
    """

    def prominence(box: Box) -> float:
        x0, y0, x1, y1 = box
        distance = abs(x0 + x1 - width) / 2 + abs(y0 + y1 - height) / 2
        return (x1 - x0) * (y1 - y0) / (1 + 4 * distance / width)

    return sorted(faces, key=prominence, reverse=True)


def _box_cells(box: Box) -> dict[str, str]:
    return {column: f"{edge:.1f}" for column, edge in zip(FACE_COLUMNS, box, strict=True)}
