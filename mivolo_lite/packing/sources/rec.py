"""MXNet's records of identities: MS1M, Glint360K, WebFace, CASIA-WebFace as insightface publishes them.

They are read without MXNet. A record is ``0xCED7230A``, a length whose upper three bits tell whether the next record
continues it, and the data, padded to four bytes. The data are a header (flag, label, two ids), ``flag`` more labels,
and the image.
"""

import math
import os
from array import array
from bisect import bisect_left
from pathlib import Path
from struct import Struct, error
from typing import Any

from mivolo_lite.errors import UserError
from mivolo_lite.labels import IDENTITY
from mivolo_lite.packing.sources.source import SourceImage
from mivolo_lite.packing.sources.whole_images import WholeImageSource
from mivolo_lite.shards.rejects import Rejected
from mivolo_lite.shards.sample import Labels, Sample

_MAGIC = b"\x0a\x23\xd7\xce"
_LENGTH, _HEADER = Struct("<I"), Struct("<IfQQ")
_LENGTH_BITS, _MOST_LABELS, _MOST_PARTS = 29, 1000, 1000
_WHOLE, _LAST = 0, 3


class RecSource(WholeImageSource):
    """Aligned face crops with identities, stored byte for byte. All images of a person go into one split.

    Args:
        rec: ``train.rec``, with ``train.idx`` next to it. ``.bin`` files are pickles and raise an error.
        options: see ``WholeImageSource``.
    """

    def __init__(self, rec: Path, **options: Any):
        super().__init__(rec, **options)
        if self.images.suffix.lower() in (".bin", ".pkl", ".pickle"):
            raise UserError(f"--rec {rec}: a pickle can run any program when it is read; give train.rec")
        if self.images.suffix != ".rec":
            raise UserError(f"--rec {rec}: is no .rec file; give train.rec, next to which train.idx lies")
        self.keys, self.offsets = _index(self.images)

    def items(self) -> list[str]:
        return [str(key) for key in self.keys]

    def read(self, item: str) -> SourceImage:
        offset = self.offsets[bisect_left(self.keys, int(item))]
        try:
            labels, image = _labels_and_image(_record(self.images, offset))
        except (ValueError, error) as reason:
            raise Rejected(str(reason)) from None
        person = f"{labels[0]:.9g}"  # WebFace42M has two million people; six digits would merge ten of them
        if labels[0] < 0:
            raise Rejected(f"identity {person} stands for no one")
        sample = Sample(f"{int(item):09d}", self.jpeg(image), None, Labels(extra={IDENTITY: person}))
        return SourceImage(image, [sample], together=person.encode())


def _index(rec: Path) -> tuple[array, array]:
    """The keys of the images and the offset of each, sorted by key. Raises UserError where there are none."""
    idx = rec.with_suffix(".idx")
    try:
        with open(idx, encoding="utf-8") as file:
            rows = sorted((int(key), int(offset)) for key, offset in (line.split() for line in file if line.strip()))
        labels, image = _labels_and_image(_record(rec, rows[0][1]))
    except OSError as reason:
        raise UserError(
            f"--rec {rec}: {reason.filename} cannot be read: {reason.strerror}; train.rec and train.idx lie together"
        ) from None
    except (ValueError, IndexError, error):  # also for bytes that are no text
        raise UserError(f"--rec {rec}: {idx.name} or the first record is damaged; copy both again") from None
    if not image and len(labels) > 1:  # the first record has the key at which the images end
        rows = [(key, offset) for key, offset in rows if 0 < key < labels[0]]
    if not rows:
        raise UserError(f"--rec {rec}: holds no images")
    keys, offsets = zip(*rows, strict=True)
    return array("q", keys), array("q", offsets)


def _record(rec: Path, offset: int) -> bytes:
    """The data of the record at an offset. Raises ValueError if there is none."""
    parts = []
    with open(rec, "rb") as file:
        file.seek(offset)
        for _ in range(_MOST_PARTS):
            if file.read(4) != _MAGIC:
                raise ValueError("no record begins there")
            (length,) = _LENGTH.unpack(file.read(4))
            kind, size = length >> _LENGTH_BITS, length & ((1 << _LENGTH_BITS) - 1)
            if size > os.fstat(file.fileno()).st_size - file.tell():
                raise ValueError("the record goes beyond the end of the file")
            parts.append(file.read(size))
            if kind in (_WHOLE, _LAST):
                return _MAGIC.join(parts)  # data that contain the magic number are split there
            file.seek(-size % 4, os.SEEK_CUR)
    raise ValueError("a record of too many parts")


def _labels_and_image(data: bytes) -> tuple[tuple[float, ...], bytes]:
    """The labels, and the bytes of the image. Raises ValueError or struct.error for anything else."""
    flag, label, _, _ = _HEADER.unpack_from(data)
    if flag > _MOST_LABELS:
        raise ValueError(f"{flag} labels")
    labels = Struct(f"<{flag}f").unpack_from(data, _HEADER.size) if flag else (label,)
    if not all(map(math.isfinite, labels)):
        raise ValueError("a label that is no number")
    return labels, data[_HEADER.size + 4 * flag :]
