"""Fingerprints: about 50 bytes and a thumbnail on disk for every image, from one reading."""

import hashlib
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from mivolo_lite.audit.quality import blur
from mivolo_lite.audit.samples import Samples
from mivolo_lite.audit.workers import Map
from mivolo_lite.files import explain_write_errors
from mivolo_lite.images.jpeg import BrokenJpeg, decode
from mivolo_lite.images.letterbox import resize
from mivolo_lite.shards.storage import ShardFiles
from mivolo_lite.system import reserve

THUMBNAIL = 32
"""Side in pixels; images of any shape are resized to a square."""

FINGERPRINT = np.dtype(
    [
        ("sample", np.int64),
        ("readable", np.bool_),
        ("bytes", np.uint64),  # 64-bit digests: a collision among a million images has a probability of 1 in 40 million
        ("pixels", np.uint64),
        ("width", np.int32),
        ("height", np.int32),
        ("contrast", np.float32),  # standard deviation of the grey levels
        ("blur", np.float32),
    ]
)

_IMAGES_PER_TASK = 128


class Fingerprints(NamedTuple):
    """The fingerprints of all faces, or of all bodies.

    Attributes:
        records: (N,) of ``FINGERPRINT``, by sample.
        thumbnails: (N, 32, 32) uint8 grey, mapped from a file.
        reasons: why an image cannot be read, by its row in ``records``.
    """

    records: np.ndarray
    thumbnails: np.ndarray
    reasons: dict[int, str]


def read_fingerprints(samples: Samples, name: str, map_tasks: Map, folder: Path) -> Fingerprints:
    """Read every ``face`` or ``body`` once; thumbnails are in an unlinked file in ``folder``.

    Raises:
        UserError: the disk has no space for them.
    """
    present = samples.present(name)
    chunks = [present[start : start + _IMAGES_PER_TASK] for start in range(0, len(present), _IMAGES_PER_TASK)]
    records = np.zeros(len(present), FINGERPRINT)
    thumbnails = _mapped((len(present), THUMBNAIL, THUMBNAIL), folder)
    reasons: dict[int, str] = {}
    done = 0
    tasks = [(name, [(sample, *samples.locate(sample)) for sample in chunk.tolist()]) for chunk in chunks]
    with tqdm(total=len(present), desc=name, unit="", disable=None) as bar:
        for chunk_records, chunk_thumbnails, chunk_reasons in map_tasks(_read_chunk, tasks):
            rows = slice(done, done + len(chunk_records))
            records[rows], thumbnails[rows] = chunk_records, chunk_thumbnails
            reasons |= {done + row: reason for row, reason in chunk_reasons.items()}
            done = rows.stop
            bar.update(len(chunk_records))
    return Fingerprints(records, thumbnails, reasons)


def _mapped(shape: tuple[int, ...], folder: Path) -> np.ndarray:
    """An array of zeros, mapped from an unlinked file, which disappears with the process. All blocks are allocated at
    once, since a mapped page without a block on a full disk ends the process by SIGBUS."""
    if not math.prod(shape):
        return np.zeros(shape, np.uint8)
    with explain_write_errors(folder), tempfile.TemporaryFile(dir=folder) as file:
        reserve(file.fileno(), math.prod(shape))
        return np.memmap(file, np.uint8, "r+", shape=shape)


def _read_chunk(
    files: Sequence[ShardFiles], task: tuple[str, list[tuple[int, int, int]]]
) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Records, thumbnails and error reasons of (sample, folder, sample in it)."""
    name, locations = task
    records = np.zeros(len(locations), FINGERPRINT)
    thumbnails = np.zeros((len(locations), THUMBNAIL, THUMBNAIL), np.uint8)
    reasons: dict[int, str] = {}
    for row, (sample, folder, local_sample) in enumerate(locations):
        records["sample"][row] = sample
        data = files[folder].read(name, local_sample)
        records["bytes"][row] = _digest(data)
        try:
            image = decode(data)
        except BrokenJpeg as error:
            reasons[row] = str(error)
            continue
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        height, width = grey.shape
        pixels = _digest(b"%dx%d:" % (width, height) + image.tobytes())
        records[row] = (sample, True, records["bytes"][row], pixels, width, height, grey.std(), blur(grey))
        thumbnails[row] = resize(grey, THUMBNAIL, THUMBNAIL)
    return records, thumbnails, reasons


def _digest(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
