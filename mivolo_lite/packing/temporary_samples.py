"""Reads images once, in parallel, into temporary files of crops, from which the shards are written."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
from tqdm import tqdm

from mivolo_lite.errors import UserError, where_raised
from mivolo_lite.packing.sources.source import Source, SourceImage
from mivolo_lite.process_pool import worker_pool
from mivolo_lite.shards.rejects import Rejected
from mivolo_lite.shards.sample import Labels, Sample

_IMAGES_PER_TASK = 64


class ByteSpan(NamedTuple):
    """Bytes of a temporary file."""

    file: str
    offset: int
    size: int


@dataclass(frozen=True)
class TemporarySample:
    """A sample whose images are in a temporary file.

    Attributes:
        rank: 8 bytes that determine the order in the split; equal for all people of an image and its duplicates.
        lot: 8 bytes that determine the split; equal for images that belong together, otherwise the rank.
        split: the published split.
    """

    key: str
    rank: bytes
    lot: bytes
    face: ByteSpan | None
    body: ByteSpan | None
    labels: Labels
    split: str | None = None

    def sample(self) -> Sample:
        """The sample with its images."""
        return Sample(self.key, _read_span(self.face), _read_span(self.body), self.labels)


@dataclass
class ReadResult:
    """The result of reading images.

    Attributes:
        samples: in the order of the images.
        rejected: unusable images with the reasons.
        missing: number of crops that are absent although there is a box, by (face or body, reason).
    """

    samples: list[TemporarySample] = field(default_factory=list)
    rejected: list[dict] = field(default_factory=list)
    missing: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, other: "ReadResult") -> None:
        """Append another result."""
        self.samples += other.samples
        self.rejected += other.rejected
        self.missing += other.missing


def read_photos(source: Source, items: Sequence[str], folder: Path, seed: int, workers: int) -> ReadResult:
    """Read images into temporary files in a new folder."""
    folder.mkdir()
    tasks = [items[start : start + _IMAGES_PER_TASK] for start in range(0, len(items), _IMAGES_PER_TASK)]
    reading = ReadResult()
    with (
        worker_pool(max(1, min(workers, len(tasks))), _start_worker, (source, folder, seed)) as pool,
        tqdm(total=len(items), desc="images", unit="", disable=None) as bar,
    ):
        for task, result in zip(tasks, pool.map(_read_images, range(len(tasks)), tasks), strict=True):
            reading.add(result)
            bar.update(len(task))
    return reading


class _Worker:
    """State of a worker process."""

    source: Source
    folder: Path
    seed: int


def _start_worker(source: Source, folder: Path, seed: int) -> None:
    _Worker.source, _Worker.folder, _Worker.seed = source, folder, seed
    # not 1, with which OpenCV waits for ever for threads of the process that this one was forked from
    cv2.setNumThreads(0)


def _read_images(task: int, items: Sequence[str]) -> ReadResult:
    """Read a few images and append their crops to a temporary file."""
    reading = ReadResult()
    with open(_Worker.folder / f"{task:08d}", "wb") as file:
        for item in items:
            try:
                image = _Worker.source.read(item)
                _check_text(image)
            except Rejected as reason:
                reading.rejected.append({"image": item, "reason": str(reason)})
                continue
            except (UserError, OSError, MemoryError):
                raise
            except Exception as error:  # an error in a source: add the image
                raise UserError(f"{item}: cannot be read: {where_raised(error)}") from error
            reading.missing.update(image.missing)
            rank = _rank(image.identity, _Worker.seed)
            lot = rank if image.together is None else _rank(image.together, _Worker.seed)
            reading.samples.extend(
                TemporarySample(
                    sample.key,
                    rank,
                    lot,
                    _append(file, sample.face),
                    _append(file, sample.body),
                    sample.labels,
                    image.split,
                )
                for sample in image.samples
            )
    return reading


def _check_text(image: SourceImage) -> None:
    """Raise Rejected for text that no index can store, such as labels from file names that are no UTF-8."""
    try:
        for sample in image.samples:
            json.dumps(sample.labels.to_json(), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Rejected("its name or a label is no Unicode text; rename it") from None


def _rank(identity: bytes, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:".encode() + hashlib.sha256(identity).digest()).digest()[:8]


def _append(file: BinaryIO, data: bytes | None) -> ByteSpan | None:
    if data is None:
        return None
    offset = file.tell()
    file.write(data)
    return ByteSpan(file.name, offset, len(data))


def _read_span(span: ByteSpan | None) -> bytes | None:
    if span is None:
        return None
    with open(span.file, "rb") as file:
        file.seek(span.offset)
        data = file.read(span.size)
    if len(data) < span.size:
        raise OSError(f"{span.file} is shorter than what was written to it")
    return data
