"""CelebA (Liu, Luo, Wang and Tang, ICCV 2015): faces with 40 attributes, identities and landmarks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mivolo_lite.errors import UserError
from mivolo_lite.labels import IDENTITY
from mivolo_lite.packing.sources.cells import IMAGE, LANDMARK_COLUMNS, SPLIT, GenderCodes
from mivolo_lite.packing.sources.layout import first_or_none, first_there, pairs, words
from mivolo_lite.packing.sources.table import Table
from mivolo_lite.packing.sources.table_source import TableSource

SPLITS = {"0": "train", "1": "val", "2": "test"}
_FOLDERS = ("", "Anno/", "Eval/")


class CelebASource(TableSource):
    """CelebA's aligned faces: the gender is the attribute Male; the other attributes are labels of tasks, 0 or 1.

    ``5_o_Clock_Shadow`` becomes ``_5_o_Clock_Shadow``, since no task's name begins with a digit. ``Young`` is an
    attribute, not an age. The splits are the published ones; each person is in one of them. ``--align`` follows the
    published landmarks.

    Args:
        images: the folder with ``Img``, ``Anno`` and ``Eval``, or Kaggle's copy, whose lists are CSVs.
        align: align the faces by the landmarks in ``list_landmarks_align_celeba`` to ArcFace's template.
    """

    def __init__(self, images: Path, align: bool = False, **options: Any):
        root = Path(images)
        folders = ["Img/img_align_celeba", "img_align_celeba/img_align_celeba", "img_align_celeba"]
        folder = first_there(root, folders, "folder of faces")
        attributes = first_there(root, _names("list_attr_celeba"), "list of attributes")
        lists = [
            first_or_none(root, _names(name))
            for name in ("identity_CelebA", "list_eval_partition", "list_landmarks_align_celeba")
        ]
        if align and lists[-1] is None:
            raise UserError(f"--images {root}: has no {_names('list_landmarks_align_celeba')[0]}, which --align needs")
        table = Table.of(f"--images {root}", _rows(attributes, *lists))
        super().__init__(folder, table, GenderCodes(""), whole="face", align=align, **options)


def _names(stem: str) -> list[str]:
    return [f"{folder}{stem}.{ending}" for folder in _FOLDERS for ending in ("txt", "csv")]


def _rows(
    attributes: Path, identities: Path | None, partition: Path | None, landmarks: Path | None
) -> Iterator[tuple[int, dict[str, str]]]:
    people, splits = (pairs(path) if path else {} for path in (identities, partition))
    points = dict(_listed(landmarks)) if landmarks else {}
    for number, (image, values) in enumerate(_listed(attributes), 1):
        if "Male" not in values:
            raise UserError(f"{attributes}: has no attribute Male; is it CelebA's?")
        cells = {name: "1" if value == "1" else "0" for name, value in values.items()}
        cells |= {IMAGE: image, "gender": "M" if cells.pop("Male") == "1" else "F"}
        cells |= {IDENTITY: people.get(image, "")} if people else {}
        cells |= {SPLIT: SPLITS.get(splits.get(image, ""), "")} if splits else {}
        cells |= {name: points.get(image, {}).get(name, "") for name in LANDMARK_COLUMNS} if points else {}
        yield number, cells


def _listed(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(image, values by name) of a list: the count, the names, then a line an image; or a CSV with its header."""
    lines = words(path)
    _, names = next(lines, (0, []))
    if len(names) == 1 and names[0].isdecimal():
        _, names = next(lines, (0, []))
    names = [name if name.isidentifier() else f"_{name}" for name in names if name not in ("image_id", "image")]
    for number, (image, *values) in lines:
        if len(values) != len(names):
            raise UserError(f"{path}: line {number}: {len(values)} values for {len(names)} names")
        yield image, dict(zip(names, values, strict=True))
