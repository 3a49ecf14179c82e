"""AgeDB (Moschoglou et al., CVPR workshops 2017): faces of famous people, labels in the file name."""

import re
import unicodedata
from pathlib import Path
from typing import Any

from mivolo_lite.labels import IDENTITY
from mivolo_lite.packing.sources.cells import IMAGE, SPLIT
from mivolo_lite.packing.sources.columns import find_columns
from mivolo_lite.packing.sources.file_names import FileNameSource, exact_age
from mivolo_lite.packing.sources.source import split_name
from mivolo_lite.packing.sources.table import read_table
from mivolo_lite.shards.rejects import Rejected
from mivolo_lite.shards.sample import Labels


class AgeDBSource(FileNameSource):
    """AgeDB's images, ``[number]_[name]_[age]_[m|f].jpg``; the name identifies the person.

    Names hold letters that archives write in two Unicode forms; both are one person.

    Args:
        csv: ``age,path,split`` of imbalanced-regression, for its splits instead of splits by person. Its train and test
            splits share people.
    """

    form = "[number]_[name]_[age]_[m|f].jpg"
    pattern = re.compile(r"(?P<number>\d+)_(?P<name>.+)_(?P<age>\d+)_(?P<gender>[mf])\.[a-z]+", re.IGNORECASE)

    def __init__(self, images: Path, csv: Path | None = None, **options: Any):
        super().__init__(images, **options)
        self.parts: dict[str, str] = {}
        if csv is not None:
            table = read_table(Path(csv))
            table = table.renamed(find_columns(table, {}, required=(SPLIT,)))
            for name, split in zip(table.columns[IMAGE], table.columns[SPLIT], strict=True):
                self.parts[_composed(Path(name).name)] = split_name(split, table.location)
            self.splits = tuple(sorted(set(self.parts.values())))

    def labels(self, name: re.Match[str]) -> Labels:
        person = _composed(name["name"])
        return Labels(exact_age(name["age"]), name["gender"].upper(), extra={IDENTITY: person})

    def split(self, item: str) -> str | None:
        if not self.splits:
            return None
        try:
            return self.parts[_composed(Path(item).name)]
        except KeyError:
            raise Rejected("is not in the CSV of splits") from None


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)
