"""PETA (Deng, Luo, Loy and Tang, ACM MM 2014): pedestrians of ten data sets with attributes."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mivolo_lite.errors import UserError
from mivolo_lite.labels import IDENTITY
from mivolo_lite.packing.sources.cells import IMAGE, GenderCodes
from mivolo_lite.packing.sources.files import image_files
from mivolo_lite.packing.sources.layout import words
from mivolo_lite.packing.sources.table import Table
from mivolo_lite.packing.sources.table_source import TableSource

AGES = {
    "personalLess15": "0-15",
    "personalLess30": "16-30",
    "personalLess45": "31-45",
    "personalLess60": "46-60",
    "personalLarger60": "61-100",
}
GENDERS = {"personalMale": "M", "personalFemale": "F"}


class PETASource(TableSource):
    """PETA's body images: gender, and age as one of five ranges; a person is a line of ``Label.txt``.

    Args:
        images: the folder with ``[data set]/archive/Label.txt`` and the images next to it.
    """

    def __init__(self, images: Path, **options: Any):
        root = Path(images)
        lists = sorted(root.rglob("Label.txt"))
        if not lists:
            raise UserError(f"--images {root}: has no Label.txt in any folder; give PETA's folder")
        rows = enumerate((cells for path in lists for cells in _cells(root, path)), 1)
        super().__init__(root, Table.of(f"--images {root}", rows), GenderCodes(""), whole="body", **options)


def _cells(root: Path, path: Path) -> Iterator[dict[str, str]]:
    """The images of one of the ten data sets, each with the attributes of its person."""
    attributes = {_person(line[0]): line[1:] for _, line in words(path)}
    folder = path.parent
    for name in image_files(folder):
        person = next((candidate for candidate in _people(name) if candidate in attributes), _people(name)[0])
        of_person = attributes.get(person, [])
        ages, genders = ([names[word] for word in of_person if word in names] for names in (AGES, GENDERS))
        where = folder.relative_to(root).as_posix()
        yield {
            IMAGE: f"{where}/{name}",
            "age": ages[0] if len(ages) == 1 else "",
            "gender": genders[0] if len(genders) == 1 else "",
            IDENTITY: f"{where}/{person}",
        }


def _people(name: str) -> list[str]:
    """The possible persons of an image: its name up to ``_`` or ``.`` or, for seven digits, the first four."""
    first = _person(name)
    return [first, _person(Path(name).stem[:4])] if re.fullmatch(r"\d{7}", Path(name).stem) else [first]


def _person(name: str) -> str:
    """A name up to ``_`` or ``.``, without leading zeros."""
    first = re.split(r"[_.]", Path(name).name, maxsplit=1)[0]
    return first.lstrip("0") or "0"
