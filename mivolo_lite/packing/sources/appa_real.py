"""APPA-REAL (Agustsson et al., FG 2017): real and apparent ages."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from mivolo_lite.labels import AGE_STD
from mivolo_lite.packing.sources.cells import IMAGE, SPLIT, GenderCodes
from mivolo_lite.packing.sources.layout import first_there
from mivolo_lite.packing.sources.table import Table, read_table
from mivolo_lite.packing.sources.table_source import TableSource

SPLITS = {"train": "train", "valid": "val", "test": "test"}


class AppaRealSource(TableSource):
    """APPA-REAL: faces cropped with a margin of 40 %; no gender. The splits are the published ones.

    Args:
        images: the folder ``appa-real-release``, with ``train``, ``valid``, ``test`` and ``gt_avg_train.csv`` ...
        age: ``apparent``, the mean of about 38 opinions, with their standard deviation; or ``real``. The other one is
            stored as ``real_age`` or ``apparent_age``.
        face: read the cropped and rotated faces (``*.jpg_face.jpg``) instead of the whole images.
    """

    def __init__(self, images: Path, age: Literal["apparent", "real"] = "apparent", face: bool = True, **options: Any):
        root = Path(images)
        tables = [(folder, read_table(first_there(root, [f"gt_avg_{folder}.csv"], "labels"))) for folder in SPLITS]
        rows = (cells for folder, table in tables for cells in _cells(folder, table, age, "_face.jpg" if face else ""))
        table = Table.of(f"--images {root}", enumerate(rows, 1))
        super().__init__(root, table, GenderCodes(""), whole="face", **options)


def _cells(folder: str, table: Table, age: str, ending: str) -> Iterator[dict[str, str]]:
    table.require({"file_name", "apparent_age_avg", "apparent_age_std", "real_age"}, "APPA-REAL")
    for _, cells in table:
        real, apparent, std = (cells[name] for name in ("real_age", "apparent_age_avg", "apparent_age_std"))
        labels = (
            {"age": apparent, AGE_STD: std, "real_age": real}
            if age == "apparent"
            else {"age": real, "apparent_age": apparent}
        )
        yield {IMAGE: f"{folder}/{cells['file_name']}{ending}", SPLIT: SPLITS[folder]} | labels
