"""CACD2000 (Chen, Chen and Hsu, ECCV 2014): faces of celebrities, labels in the file name."""

import re
import unicodedata

from mivolo_lite.labels import IDENTITY
from mivolo_lite.packing.sources.file_names import FileNameSource, exact_age
from mivolo_lite.shards.sample import Labels


class CACDSource(FileNameSource):
    """CACD2000's images, ``[age]_[Given]_[Family]_[NNNN].jpg``; the name identifies the person. No gender.

    ``celebrity2000_meta.mat`` is not needed. The rank-based splits of the literature come with ``pack paplhjak``.
    """

    form = "[age]_[Given]_[Family]_[NNNN].jpg"
    pattern = re.compile(r"(?P<age>\d+)_(?P<name>.+)_(?P<number>\d+)\.[a-z]+", re.IGNORECASE)

    def labels(self, name: re.Match[str]) -> Labels:
        return Labels(exact_age(name["age"]), extra={IDENTITY: unicodedata.normalize("NFC", name["name"])})
