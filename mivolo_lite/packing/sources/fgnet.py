"""FG-NET: family photographs of 82 people, labels in the file name."""

import re

from mivolo_lite.labels import FOLD, IDENTITY
from mivolo_lite.packing.sources.file_names import FileNameSource, exact_age
from mivolo_lite.shards.sample import Labels


class FGNetSource(FileNameSource):
    """FG-NET's images, ``[person]A[age][letter].JPG``, whole; no gender.

    The protocol leaves one person out at a time: the fold of a sample is its person, from 0 on. Cut to the face they
    are ``pack annotations`` with boxes, or ``pack paplhjak``.
    """

    form = "[person]A[age][letter].JPG"
    pattern = re.compile(r"(?P<person>\d{3})A(?P<age>\d{2})(?P<letter>[a-z]?)\.[a-z]+", re.IGNORECASE)
    has_folds = True

    def labels(self, name: re.Match[str]) -> Labels:
        return Labels(exact_age(name["age"]), extra={IDENTITY: name["person"], FOLD: int(name["person"]) - 1})
