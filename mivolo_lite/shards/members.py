"""Offsets of a sample's members in its shard, and CRC checks, so that no changed or damaged bytes are trained on.

An index holds a CRC-32 of every image and of every sample's labels. On faces of 112 px, the checks take 3 of the
loader's 160 microseconds a sample: 1 for the image, 2 to read and check the labels. A SHA-256 of the image alone would
take 3, and more on a CPU without instructions for it.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from zlib import crc32

import numpy as np

IMAGES, LABELS = ("face", "body"), "labels"


class DamagedBytes(Exception):
    """Bytes differ from the indexed ones."""


class Members:
    """The members of all samples of a data set: ``face``, ``body`` and, unless an older version indexed it, ``labels``.

    Args:
        columns: of the index. Older indexes have ``check`` (``check_of``) instead of CRCs, or neither.
    """

    def __init__(self, columns: Mapping[str, np.ndarray]):
        self.has_crcs = f"{LABELS}_crc" in columns
        self.names = (*IMAGES, LABELS) if self.has_crcs else IMAGES
        self._columns = {name: (columns[f"{name}_size"], columns[f"{name}_offset"]) for name in self.names}
        # `item` gives a plain number, in half the time of `int(column[sample])`.
        self._place = {name: tuple(column.item for column in self._columns[name]) for name in self.names}
        self._crc = {name: columns[f"{name}_crc"] for name in self.names} if self.has_crcs else {}
        self._check = columns.get("check")

    def range(self, samples: range) -> tuple[int, int]:
        """Begin and end of the bytes that hold all members of neighbouring samples."""
        spans = [tuple(column[samples.start : samples.stop] for column in self._columns[name]) for name in self.names]
        sizes, offsets = (np.concatenate(columns) for columns in zip(*spans, strict=True))
        present = sizes > 0
        return int(offsets[present].min()), int((offsets + sizes)[present].max())

    def read(self, name: str, sample: int, pread: Callable[[int, int], bytes]) -> bytes:
        """A sample's image, after checking it and the sample's labels against the index.

        Args:
            name: ``face`` or ``body``.
            sample: number of the sample.
            pread: reads so many bytes at an offset of the sample's shard.

        Raises:
            DamagedBytes: they differ from what was indexed.
        """
        image = self._pread(name, sample, pread)
        if self.has_crcs:
            if crc32(image) != self._crc[name].item(sample):
                raise DamagedBytes(f"its {name} is not what was indexed")
            if crc32(self._pread(LABELS, sample, pread)) != self._crc[LABELS].item(sample):
                raise DamagedBytes("its labels are not what was indexed")
        elif self._check is not None:
            images = (image if crop == name else self._pread(crop, sample, pread) for crop in IMAGES)
            if check_of(*images) != self._check[sample]:
                raise DamagedBytes("its images are not what was indexed")
        return image

    def read_all(self, name: str, samples: np.ndarray, preads: Iterable[Callable[[int, int], bytes]]) -> list[bytes]:
        """``read`` for samples (n,), with one ``pread`` each; takes two thirds of the time of single calls.

        Raises:
            DamagedBytes: one of them is not what was indexed; ``read`` says which.
        """
        if not self.has_crcs:
            return [self.read(name, sample, pread) for sample, pread in zip(samples.tolist(), preads, strict=True)]
        members = [*self._columns[name], self._crc[name], *self._columns[LABELS], self._crc[LABELS]]
        rows, images = zip(*(column[samples].tolist() for column in members), strict=True), []
        for (size, offset, crc, labels_size, labels_offset, labels_crc), pread in zip(rows, preads, strict=True):
            images.append(image := pread(size, offset))
            if crc32(image) != crc or crc32(pread(labels_size, labels_offset)) != labels_crc:
                raise DamagedBytes("one sample is not what was indexed")
        return images

    def _pread(self, name: str, sample: int, pread: Callable[[int, int], bytes]) -> bytes:
        size, offset = self._place[name]
        return pread(size(sample), offset(sample))


def member_columns(spans: Sequence[Sequence[tuple[int, int]]], crcs: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
    """The columns of an index that ``Members`` reads.

    Args:
        spans: offset and size of each sample's face, body and labels.
        crcs: of the same.
    """
    columns = {}
    for member, name in enumerate((*IMAGES, LABELS)):
        columns[f"{name}_offset"] = np.array([sample[member][0] for sample in spans], dtype=np.int64)
        columns[f"{name}_size"] = np.array([sample[member][1] for sample in spans], dtype=np.int32)
        columns[f"{name}_crc"] = np.array([sample[member] for sample in crcs], dtype=np.uint32)
    return columns


def check_of(face: bytes, body: bytes) -> int:
    """The 64-bit checksum of a sample's images in indexes without CRCs."""
    digest = hashlib.sha256(face)
    digest.update(body)
    return int.from_bytes(digest.digest()[:8], "little")
