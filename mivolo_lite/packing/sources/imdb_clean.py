"""IMDB-clean (Lin et al., 2021): IMDB's photos with cleaned ages and boxes."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mivolo_lite.labels import IDENTITY
from mivolo_lite.packing.sources.cells import FACE_COLUMNS, IMAGE, SPLIT, GenderCodes
from mivolo_lite.packing.sources.layout import first_there
from mivolo_lite.packing.sources.table import Table, read_table
from mivolo_lite.packing.sources.table_source import TableSource

SPLITS = {"train": "train", "valid": "val", "test": "test"}
_BOX = ("x_min", "y_min", "x_max", "y_max")
_PERSON = re.compile(r"nm\d+")


class ImdbCleanSource(TableSource):
    """IMDB-clean: photos cropped with a margin of 100 % (``imdb-clean-1024``) or, with ``original``, whole ones.

    A person is the ``nm`` number in a file's name. The splits are those of the three CSVs.

    Args:
        images: the folder with ``imdb_train_new_1024.csv`` and ``imdb-clean-1024``, or ``imdb_train_new.csv`` and
            ``imdb``.
        original: read the whole photos, whose CSVs have no ``_1024`` in their names.
    """

    def __init__(self, images: Path, original: bool = False, **options: Any):
        root, ending = Path(images), "" if original else "_1024"
        folder = first_there(
            root,
            ["imdb", "imdb_crop"] if original else ["imdb-clean-1024/imdb-clean-1024", "imdb-clean-1024"],
            "folder of photos",
        )
        names = {name: [f"{sub}imdb_{name}_new{ending}.csv" for sub in ("", "csvs/")] for name in SPLITS}
        tables = {SPLITS[name]: read_table(first_there(root, files, "CSV")) for name, files in names.items()}
        rows = (cells for split, table in tables.items() for cells in _cells(split, table))
        table = Table.of(f"--images {root}", enumerate(rows, 1))
        super().__init__(folder, table, GenderCodes(""), **options)


def _cells(split: str, table: Table) -> Iterator[dict[str, str]]:
    table.require({"filename", "age", "gender", *_BOX}, "IMDB-clean")
    for line in table:
        cells = dict(line.cells)
        name = cells.pop("filename")
        person = _PERSON.search(name)
        box = {column: cells.pop(old) for column, old in zip(FACE_COLUMNS, _BOX, strict=True)}
        yield cells | box | {IMAGE: name, SPLIT: split, IDENTITY: person[0] if person else ""}
