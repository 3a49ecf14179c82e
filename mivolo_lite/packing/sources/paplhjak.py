"""The benchmark of Paplham and Franc (CVPR 2024): one JSON for each data set, with fixed folds and rotated boxes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mivolo_lite.errors import UserError
from mivolo_lite.labels import AGE_STD, FOLD, IDENTITY
from mivolo_lite.packing.sources.cells import CORNERS, IMAGE, SPLIT, GenderCodes
from mivolo_lite.packing.sources.table import Table, read_table
from mivolo_lite.packing.sources.table_source import TableSource, Whole

PROTOCOL = (
    {"train": range(6), "val": (6, 7), "test": (8, 9)},
    {"train": range(2, 8), "val": (8, 9), "test": (0, 1)},
    {"train": range(4, 10), "val": (0, 1), "test": (2, 3)},
    {"train": (5, 6, 7, 8, 9, 0), "val": (1, 2), "test": (3, 4)},
    {"train": (6, 7, 8, 9, 0, 1), "val": (2, 3), "test": (4, 5)},
)
"""The folders of the five fixed splits."""
PUBLISHED = {0: "train", 1: "val", 2: "test"}
"""The folders of data sets that have published splits, CLAP and CACD."""


class PaplhjakSource(TableSource):
    """The benchmark's JSON of AgeDB, AFAD, CACD, CLAP, FG-NET, IMDB-clean, MORPH or UTKFace.

    Faces are cropped by ``aligned_bbox``, a rotated square, if the JSON has it. A sample's JSON has its fold; data sets
    with three folders have them as splits.

    Args:
        images: the folder that ``img_path`` is relative to.
        json: ``[database].json`` or ``[database]_aligned.json``.
        protocol: make the splits train, val and test of one of the five fixed splits, 0 to 4.
        gender_codes: meaning of numbers for the gender, such as 0=M,1=F.
    """

    def __init__(self, images: Path, json: Path, protocol: int | None = None, gender_codes: str = "", **options: Any):
        if protocol is not None and not 0 <= protocol < len(PROTOCOL):
            raise UserError(f"--protocol {protocol}: give 0 to {len(PROTOCOL) - 1}")
        table, gender_of = read_table(Path(json), option="--json"), GenderCodes(gender_codes)
        if missing := {"img_path", "age", "folder"} - table.columns.keys():
            raise UserError(f"{table.location}: {min(missing)} is missing; give a JSON of the benchmark")
        folders = {_number(cell) for cell in table.columns["folder"]}
        split_of = PUBLISHED if folders <= PUBLISHED.keys() else _splits(protocol)
        rows = ((line.number, _cells(line.cells, split_of)) for line in table)
        table = Table.of(table.location, rows)
        if "gender" in table.columns:
            gender_of.check(table.columns["gender"], table.location)
        whole: Whole = "face" if CORNERS not in table.columns else "auto"
        super().__init__(images, table, gender_of, whole=whole, **options)


def _splits(protocol: int | None) -> dict[int, str]:
    if protocol is None:
        return {}
    return {folder: split for split, folders in PROTOCOL[protocol].items() for folder in folders}


def _cells(record: Mapping[str, str], split_of: Mapping[int, str]) -> dict[str, str]:
    folder = _number(record["folder"])
    cells = {IMAGE: record["img_path"], "age": record["age"], FOLD: str(folder)}
    cells |= {"gender": record["gender"]} if "gender" in record else {}
    if person := record.get("id_num") or record.get("name"):
        cells[IDENTITY] = person
    cells |= {AGE_STD: record["std_age"]} if "std_age" in record else {}
    cells |= {CORNERS: record["aligned_bbox"]} if record.get("aligned_bbox") else {}
    return cells | ({SPLIT: split_of.get(folder, "")} if split_of else {})


def _number(cell: str) -> int:
    try:
        return int(float(cell))
    except ValueError:
        raise UserError(f"--json: folder {cell!r:.40} is no number; give a JSON of the benchmark") from None
