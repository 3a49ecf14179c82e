"""Adience (Eidinger, Enbar and Hassner, TIFS 2014): Flickr faces in eight age classes and five folds."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from mivolo_lite.labels import FOLD, IDENTITY
from mivolo_lite.packing.sources.cells import IMAGE, GenderCodes
from mivolo_lite.packing.sources.layout import first_there
from mivolo_lite.packing.sources.table import Table, read_table
from mivolo_lite.packing.sources.table_source import TableSource

STRAY = {
    **dict.fromkeys(("2", "3"), "(0, 2)"),
    **dict.fromkeys(("13", "(8, 23)"), "(8, 12)"),
    **dict.fromkeys(("22",), "(15, 20)"),
    **dict.fromkeys(("23", "29", "(27, 32)", "32", "34", "35"), "(25, 32)"),
    **dict.fromkeys(("36", "(38, 42)", "(38, 48)", "42", "45"), "(38, 43)"),
    **dict.fromkeys(("46", "55", "56"), "(48, 53)"),
    **dict.fromkeys(("57", "58"), "(60, 100)"),
}
"""Ages outside the classes, and the classes that they have in the literature."""

_IMAGES = {"faces": "coarse_tilt_aligned_face", "aligned": "landmark_aligned_face"}


class AdienceSource(TableSource):
    """Adience: faces with their age class as a range; ages outside the classes are mapped to the nearest and counted.

    The five folds share no person. A person is a Flickr user. A sample's JSON has its fold.

    Args:
        images: the folder with ``fold_0_data.txt`` ... and ``aligned`` or ``faces``.
        crops_of: the folder of images: ``aligned`` (by landmarks) or ``faces`` (turned upright coarsely).
        frontal: read only the nearly frontal faces of ``fold_frontal_0_data.txt`` ....
    """

    def __init__(
        self, images: Path, crops_of: Literal["aligned", "faces"] = "aligned", frontal: bool = False, **options: Any
    ):
        root, name = Path(images), "fold_frontal_{}_data.txt" if frontal else "fold_{}_data.txt"
        files = [
            first_there(root, [name.format(fold), f"folds/{name.format(fold)}"], "list of a fold") for fold in range(5)
        ]
        strays: Counter[str] = Counter()
        folder = first_there(root, [crops_of], "folder of faces")
        rows = (cells for fold, path in enumerate(files) for cells in _cells(path, fold, folder.name, strays))
        table = Table.of(f"--images {root}", enumerate(rows, 1))
        super().__init__(folder, table, GenderCodes(""), whole="face", **options)
        if strays:
            mapped = ", ".join(f"{age} -> {STRAY[age]} ({count})" for age, count in sorted(strays.items()))
            self.notes = [*self.notes, f"ages outside the eight classes: {mapped}"]


def _cells(path: Path, fold: int, folder: str, strays: Counter[str]) -> Iterator[dict[str, str]]:
    table = read_table(path, "tab", "--images")
    table.require({"user_id", "original_image", "face_id", "age", "gender"}, "Adience")
    for _, cells in table:
        age = cells["age"]
        if age in STRAY:
            strays[age] += 1
        image = f"{cells['user_id']}/{_IMAGES[folder]}.{cells['face_id']}.{cells['original_image']}"
        labels = {"age": STRAY.get(age, age), "gender": cells["gender"], IDENTITY: cells["user_id"], FOLD: str(fold)}
        yield {IMAGE: image} | labels
