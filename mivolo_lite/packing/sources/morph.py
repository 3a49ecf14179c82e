"""MORPH Album 2 (Ricanek and Tesafaye, FG 2006): mugshots, labels in the file name."""

import re
from pathlib import Path
from typing import Any

from mivolo_lite.errors import UserError
from mivolo_lite.labels import IDENTITY
from mivolo_lite.packing.sources.cells import IMAGE
from mivolo_lite.packing.sources.columns import find_columns
from mivolo_lite.packing.sources.file_names import FileNameSource, exact_age
from mivolo_lite.packing.sources.table import read_table
from mivolo_lite.shards.sample import Labels

GROUPS = {"B": "Black", "W": "White", "H": "Hispanic", "A": "Asian", "O": "Other"}


class MorphSource(FileNameSource):
    """MORPH's images, ``[person]_[number][M|F][age].JPG``; some releases write the number with one digit more or less.

    Args:
        csv: ``MORPH_Album2*.csv`` with the columns ``photo`` and ``race``, for the group.
    """

    form = "[person]_[number][M|F][age].JPG"
    pattern = re.compile(r"(?P<person>\d+)_(?P<number>\d*)(?P<gender>[MF])(?P<age>\d+)\.[a-z]+", re.IGNORECASE)

    def __init__(self, images: Path, csv: Path | None = None, **options: Any):
        super().__init__(images, **options)
        self.groups: dict[str, str] = {}
        if csv is not None:
            table = read_table(Path(csv))
            chosen = {IMAGE: "photo"} if "photo" in table.columns else {}
            table = table.renamed(find_columns(table, chosen, required=("group",)))
            for photo, race in zip(table.columns[IMAGE], table.columns["group"], strict=True):
                self.groups[_stem(photo)] = GROUPS.get(race.upper(), race)
            self._count_images_without_row(table.location)

    def _count_images_without_row(self, location: str) -> None:
        """Note the number of images without a group. Raises UserError if none has one."""
        names = [name for name in self.items() if self.pattern.fullmatch(Path(name).name)]
        missing = [name for name in names if _stem(name) not in self.groups]
        if names and len(missing) == len(names):
            raise UserError(f"{location}: names none of the {len(names)} images, such as {names[0]}; give MORPH's CSV")
        if missing:
            self.notes = [f"groups are unknown of {len(missing)} of {len(names)} images, which the CSV does not name"]

    def labels(self, name: re.Match[str]) -> Labels:
        group = self.groups.get(_stem(name.string)) or None
        person = f"{int(name['person']):06d}"  # written with five and six digits
        return Labels(exact_age(name["age"]), name["gender"].upper(), group, {IDENTITY: person})


def _stem(name: str) -> str:
    return Path(name.replace("\\", "/")).stem.upper()
