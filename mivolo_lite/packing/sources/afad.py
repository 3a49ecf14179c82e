"""AFAD (Niu et al., CVPR 2016): faces of Asian people, labels in the folders' names."""

import re

from mivolo_lite.labels import IDENTITY
from mivolo_lite.packing.sources.file_names import FileNameSource, exact_age
from mivolo_lite.shards.sample import Labels


class AFADSource(FileNameSource):
    """AFAD's images, ``[age]/[111 male, 112 female]/[person]-[number].jpg``."""

    form = "[age]/[111 or 112]/[person]-[number].jpg"
    pattern = re.compile(
        r"(?:.*/)?(?P<age>\d+)/(?P<gender>11[12])/(?P<person>\d+)-(?P<number>\d+)\.[a-z]+", re.IGNORECASE
    )
    whole_path = True

    def labels(self, name: re.Match[str]) -> Labels:
        gender = {"111": "M", "112": "F"}[name["gender"]]
        return Labels(exact_age(name["age"]), gender, extra={IDENTITY: name["person"]})
