"""LAGENDA (Kuprashevich and Tolstykh, 2023): photos of Open Images with MiVOLO's annotations."""

from pathlib import Path
from typing import Any

from mivolo_lite.packing.sources.annotations import AnnotationSource
from mivolo_lite.packing.sources.cells import IMAGE
from mivolo_lite.packing.sources.layout import first_there

_FOLDERS = ("", "lag_benchmark", "lag_benchmark/lag_benchmark")
"""Folders below ``images`` to which the annotation's names may be relative."""


class LagendaSource(AnnotationSource):
    """LAGENDA: face and body of the labelled people; others are blanked out. A benchmark with one split, ``test``.

    Args:
        images: the folder with ``lagenda_annotation.csv`` and ``lag_benchmark``.
    """

    splits = ("test",)

    def __init__(self, images: Path, **options: Any):
        root = Path(images)
        csv = first_there(root, ["lagenda_annotation.csv", "annotation/lagenda_annotation.csv"], "annotation")
        super().__init__(root, csv, **options)
        names = self.table.columns[IMAGE]
        places = (root / folder for name in names for folder in _FOLDERS if (root / folder / name).exists())
        self.images = next(places, root)

    def _splits(self) -> tuple[str, ...]:
        return LagendaSource.splits

    def _split(self, cells: object) -> str:
        return "test"
