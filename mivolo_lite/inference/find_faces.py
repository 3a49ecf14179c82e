"""Adds face boxes to a table of labels without them, so that its photos are packed as ``predict`` cuts photos."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mivolo_lite.csv_file import written_csv
from mivolo_lite.errors import UserError
from mivolo_lite.files import require_replaceable, result_folder, written_aside
from mivolo_lite.inference.partial_results import PartialResults
from mivolo_lite.inference.resuming import Processes, run_resumably
from mivolo_lite.inference.sources import Item
from mivolo_lite.inference.windows import Find
from mivolo_lite.inference.work import Result
from mivolo_lite.packing.crops import Box
from mivolo_lite.packing.decode import UnusablePhoto, read_photo
from mivolo_lite.packing.sources.cells import BODY_COLUMNS, CORNERS, FACE_COLUMNS, IMAGE
from mivolo_lite.packing.sources.columns import find_columns
from mivolo_lite.packing.sources.table import Table, read_table
from mivolo_lite.packing.sources.table_source import check_folder
from mivolo_lite.shards.rejects import REJECTED_FILE, write_rejected

LABELS_FILE = "labels.csv"
RESULT_FILES = (LABELS_FILE, REJECTED_FILE)


@dataclass
class Found:
    """The outcome for the rows of a table.

    Attributes:
        faces: number of rows with a box.
        several: number of photos with other faces as well.
        rejected: photos that are left out, each with the reason.
    """

    faces: int = 0
    several: int = 0
    rejected: list[dict[str, str]] = field(default_factory=list)


def find_faces(
    images: Path,
    labels: Path,
    out: Path,
    detector: Find,
    settings: Mapping[str, Any],
    path: str = "",
    delimiter: str = "auto",
) -> Found:
    """Write ``labels.csv``, the table with the boxes of the faces, and ``rejected.jsonl``.

    The labels belong to the largest and most central face of a photo. Its other faces become rows without labels,
    which ``pack`` blanks out of bodies. Photos that an interrupted call with the same settings has done are not
    repeated.

    Args:
        images: folder that the photos' names are relative to.
        labels: the table: CSV, JSON lines or Parquet, with a row for each photo.
        out: folder of the two files.
        detector: finds the faces of a photo (H, W, 3) uint8 RGB.
        settings: everything that the boxes depend on, except the photos, for ``json``.
        path: column with the photos' names; a usual one by default.
        delimiter: separator of a CSV's cells.

    Raises:
        UserError: the table cannot be read, has boxes already or would be replaced, or no photo of it shows a face.
        Unfinished: after Ctrl-C or an error of one line, or if the files cannot be written.
    """
    check_folder(images)
    table = read_table(labels, delimiter)
    name_column = find_columns(table, {IMAGE: path})[IMAGE]
    if boxes := [column for column in (*FACE_COLUMNS, *BODY_COLUMNS, CORNERS) if column in table.columns]:
        raise UserError(f"{table.location}: has boxes already ({', '.join(boxes)}); give it to `pack csv` as it is")
    require_replaceable(out, RESULT_FILES, [labels])
    result_folder(out, ())
    rows, ambiguous = _rows_of_photos(table, name_column)
    names = [cells[name_column] for cells in rows]
    found = run_resumably(
        PartialResults(out, [Item("image", str(images / name)) for name in names], RESULT_FILES),
        settings,
        lambda items: _look(items, names, detector),
        lambda results: _write(results, rows, [*table.columns], name_column, ambiguous, out),
        Processes(),
    )
    assert found is not None  # this is the only process
    if not found.faces:
        (out / LABELS_FILE).unlink()
        first = found.rejected[0] if found.rejected else {"image": "no row", "reason": "the table is empty"}
        raise UserError(f"{table.location}: no face in any photo; the first: {first['image']}: {first['reason']}")
    return found


def _rows_of_photos(table: Table, name_column: str) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The row of each photo, and the photos with several rows, which only boxes could match to faces."""
    rows: dict[str, list[dict[str, str]]] = {}
    for line in table:
        rows.setdefault(line.cells[name_column], []).append(line.cells)
    ambiguous = [
        {"image": name, "reason": f"{len(of_photo)} rows name it: which face is whose?"}
        for name, of_photo in rows.items()
        if len(of_photo) > 1
    ]
    return [of_photo[0] for of_photo in rows.values() if len(of_photo) == 1], ambiguous


def _look(items: Sequence[tuple[int, Item]], names: Sequence[str], detector: Find) -> Iterator[tuple[int, Result]]:
    """The boxes of each photo's faces, the most prominent first, or why the photo cannot be read."""
    for number, item in tqdm(items, desc="finding faces", leave=False, disable=None):
        try:
            image = read_photo(Path(item.address)).image
        except UnusablePhoto as reason:
            yield number, Result(rejected=[{"image": names[number], "reason": str(reason)}])
            continue
        faces = by_prominence((face.box for face in detector(image)), image.shape[1], image.shape[0])
        yield number, Result([_box_cells(face) for face in faces])


def _write(
    results: Iterable[tuple[int, Result]],
    rows: Sequence[dict[str, str]],
    columns: Sequence[str],
    name_column: str,
    ambiguous: Sequence[dict[str, str]],
    out: Path,
) -> Found:
    """Write both files. Raises UserError if that fails."""
    found = Found(rejected=[*ambiguous])
    with written_csv(out / LABELS_FILE) as writer:
        writer.writerow([*columns, *FACE_COLUMNS])
        for number, result in results:
            labels = rows[number]
            for box in result.rows:
                writer.writerow([*(labels.get(column) for column in columns), *box.values()])
                labels = {name_column: labels[name_column]}  # for the other faces
            found.faces += len(result.rows) > 0
            found.several += len(result.rows) > 1
            nobody = [] if result.rows else [{"image": labels[name_column], "reason": "no face found"}]
            found.rejected += result.rejected or nobody
    with written_aside(out / REJECTED_FILE) as partial:
        write_rejected(partial, found.rejected)
    return found


def by_prominence(faces: Iterable[Box], width: int, height: int) -> list[Box]:
    """Boxes, the largest and most central first: at a quarter of the width from the photo's centre, a face counts half.

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
