"""UTKFace (Zhang, Song and Qi, CVPR 2017): labels in the file name, one aligned face an image."""

import re

from mivolo_lite.labels import GENDERS
from mivolo_lite.packing.sources.file_names import FileNameSource, exact_age
from mivolo_lite.shards.sample import Labels

GROUPS = ("White", "Black", "Asian", "Indian", "Others")


class UTKFaceSource(FileNameSource):
    """UTKFace's images: upright JPEGs are stored byte for byte, others as new JPEGs."""

    form = "[age]_[gender]_[race]_[date].jpg"
    pattern = re.compile(
        r"(?P<age>\d+)_(?P<gender>[01])_(?P<group>[0-4])_\d+(?P<ending>(\.jpg\.chip)?\.[a-z0-9]+)", re.IGNORECASE
    )

    def labels(self, name: re.Match[str]) -> Labels:
        return Labels(exact_age(name["age"]), GENDERS[int(name["gender"])], GROUPS[int(name["group"])])
