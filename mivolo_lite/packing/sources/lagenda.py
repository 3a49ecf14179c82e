"""LAGENDA (Kuprashevich and Tolstykh, 2023): photos of Open Images with MiVOLO's annotations."""

from pathlib import Path
from typing import Any

from mivolo_lite.packing.sources.annotations import AnnotationSource
from mivolo_lite.packing.sources.layout import first_or_none, first_there


class LagendaSource(AnnotationSource):
    """LAGENDA: face and body of everybody labelled; all others are blanked out. A benchmark, one split: ``test``.

    Args:
        images: the folder with ``lagenda_annotation.csv`` and ``lag_benchmark``.
    """

    splits = ("test",)

    def __init__(self, images: Path, **options: Any):
        root = Path(images)
        csv = first_there(root, ["lagenda_annotation.csv", "annotation/lagenda_annotation.csv"], "annotation")
        photos = first_or_none(root, ["lag_benchmark/lag_benchmark", "lag_benchmark"]) or root
        super().__init__(photos, csv, **options)

    def _splits(self) -> tuple[str, ...]:
        return LagendaSource.splits

    def _split(self, cells: object) -> str:
        return "test"
