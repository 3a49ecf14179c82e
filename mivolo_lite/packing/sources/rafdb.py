"""RAF-DB basic (Li, Deng and Du, CVPR 2017): expressions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mivolo_lite.packing.sources.cells import IMAGE, LANDMARK_COLUMNS, SPLIT, GenderCodes
from mivolo_lite.packing.sources.layout import first_there, words
from mivolo_lite.packing.sources.table import Table
from mivolo_lite.packing.sources.table_source import TableSource

EXPRESSIONS = ("Surprise", "Fear", "Disgust", "Happiness", "Sadness", "Anger", "Neutral")
GROUPS = ("Caucasian", "African-American", "Asian")
AGES = ("0-3", "4-19", "20-39", "40-69", "70+")


class RafDBSource(TableSource):
    """RAF-DB's aligned faces: the expression is a label of a task, ``expression``; the age is a range of five.

    The splits are the published train and test.

    Args:
        images: the folder ``basic``, with ``Image``, ``EmoLabel`` and ``Annotation``.
        align: align the original images by the annotators' landmarks instead of reading the aligned ones.
    """

    def __init__(self, images: Path, align: bool = False, **options: Any):
        root = Path(images)
        folder = first_there(root, ["Image/original"] if align else ["Image/aligned"], "folder of faces")
        names = [f"EmoLabel/list_{spelling}_label.txt" for spelling in ("patition", "partition")]
        expressions = first_there(root, names, "list of expressions")
        rows = _rows(expressions, root / "Annotation" / "manual", "" if align else "_aligned")
        table = Table.of(f"--images {root}", rows)
        super().__init__(folder, table, GenderCodes(""), whole="face", align=align, **options)


def _rows(expressions: Path, manual: Path, ending: str) -> Iterator[tuple[int, dict[str, str]]]:
    for number, (name, code) in ((number, line[:2]) for number, line in words(expressions)):
        stem, _, image_ending = name.rpartition(".")
        cells = {IMAGE: f"{stem}{ending}.{image_ending}", SPLIT: stem.partition("_")[0]}
        cells["expression"] = _chosen(EXPRESSIONS, code, 1)
        attributes = manual / f"{stem}_manu_attri.txt"
        yield number, cells | (_manual(attributes) if attributes.is_file() else {})


def _manual(path: Path) -> dict[str, str]:
    """Five landmarks, gender, group and age of an image's own file."""
    lines = [line for _, line in words(path)]
    points, codes = [word for line in lines[:5] for word in line], [line[0] for line in lines[5:8]]
    if len(points) != 10 or len(codes) != 3:
        return {}
    gender, group, age = codes
    labels = {"gender": _chosen(("M", "F"), gender), "group": _chosen(GROUPS, group), "age": _chosen(AGES, age)}
    return dict(zip(LANDMARK_COLUMNS, points, strict=True)) | labels


def _chosen(names: tuple[str, ...], code: str, first: int = 0) -> str:
    """The name of a code; empty for a code without a name, such as 2, unsure, for the gender."""
    index = int(code) - first if code.isdecimal() else -1
    return names[index] if 0 <= index < len(names) else ""
