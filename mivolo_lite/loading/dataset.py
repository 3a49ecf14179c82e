"""Samples read from shards by number, a whole batch at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mivolo_lite.images.jpeg import BrokenJpeg, JpegHeader, check, decode_checked
from mivolo_lite.images.letterbox import letterbox
from mivolo_lite.images.packed import Images
from mivolo_lite.labels import AGE_STD
from mivolo_lite.loading.batch import Batch
from mivolo_lite.loading.mixup import Mixup, MixupConfig
from mivolo_lite.loading.task_labels import age_stds
from mivolo_lite.loading.transforms import Augment, AugmentConfig
from mivolo_lite.randomness import hash_of
from mivolo_lite.shards.concat import ConcatIndex
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.sample_ref import SampleRef
from mivolo_lite.shards.storage import open_shards

_DROP, _AUGMENT = 0, 1  # hashed as well, so that each use of random numbers has its own


@dataclass(frozen=True)
class TrainingChanges:
    """Random changes to the training samples, as a function of (seed, epoch, sample).

    Attributes:
        augment: augmentation of each image; face and body share their random numbers, so both are flipped or neither.
        drop: probability of hiding each input. The last one is never hidden.
        seed: another seed gives other changes.
        mixup: mixing of pairs of samples.
        negated: tasks whose labels change their sign where the images are flipped.
    """

    augment: AugmentConfig
    drop: dict[str, float]
    seed: int
    mixup: MixupConfig = field(default_factory=MixupConfig)
    negated: tuple[str, ...] = ()


class ShardDataset:
    """Reads batches of samples by number.

    Args:
        index: the shards, of one data set or of several.
        inputs: images to decode, of ``face`` and ``body``.
        image_size: side of the square images in pixels.
        changes: random changes of training; None for evaluation.
        block_samples: neighbouring samples that are fetched together where the shards are at a URL.
        tasks: (N,) labels of tasks over the whole index, as ``task_columns`` gives them.
    """

    def __init__(
        self,
        index: ShardIndex | ConcatIndex,
        inputs: Sequence[str],
        image_size: int,
        changes: TrainingChanges | None = None,
        block_samples: int = 256,
        tasks: Mapping[str, np.ndarray] | None = None,
    ):
        self.index, self.inputs, self.image_size, self.changes = index, tuple(inputs), image_size, changes
        self.tasks = tasks or {}
        self.age_std = age_stds(index)
        self.shards = open_shards(index, block_samples)
        self.augment = Augment(changes.augment) if changes else None
        self.mixup = Mixup(changes.mixup, changes.seed) if changes and changes.mixup.is_on else None

    def buffers(self, *count: int) -> dict[str, np.ndarray]:
        """Memory for images, (*count, S, S, 3) uint8 for each input."""
        return {name: np.empty((*count, self.image_size, self.image_size, 3), np.uint8) for name in self.inputs}

    def read(self, refs: Sequence[SampleRef]) -> Batch:
        """The batch of these samples."""
        return self.arrays(refs, (), self.buffers(len(refs))).tensors()

    def arrays(
        self, refs: Sequence[SampleRef] | np.ndarray, ahead: Sequence[Any], buffers: dict[str, np.ndarray]
    ) -> Batch:
        """The batch of these samples, with arrays.

        Small tensors took 5 of 140 microseconds a sample, since decoding evicts torch's code from the CPU's caches.

        Args:
            refs: the samples, or (B, 3) int64 their fields.
            ahead: blocks of remote shards to fetch meanwhile.
            buffers: (B, S, S, 3) uint8 for each input; the images are written there.
        """
        (epochs, samples, valid), changes = np.array(refs, dtype=np.int64, order="F").T, self.changes
        self.shards.prepare(samples, ahead)
        present = self._present(epochs, samples)
        numbers = self.augment.numbers(changes.seed, epochs, samples, _AUGMENT) if self.augment and changes else None
        broken: list[str] = []
        images = {
            name: self._decode(name, samples, present[name], buffers[name], numbers, broken) for name in self.inputs
        }
        labels = {name: self.index.select(name, samples) for name in ("age_lo", "age_hi", "gender")}
        if self.age_std is not None:
            labels[AGE_STD] = self.age_std[samples]
        tasks = {name: column[samples] for name, column in self.tasks.items()}
        if self.augment and changes and changes.negated and numbers:
            self.augment.negate_flipped(tasks, changes.negated, numbers)
        batch = Batch.assemble(images, labels, samples, valid.astype(bool), broken, tasks)
        return batch if self.mixup is None else self.mixup(batch.tensors(), epochs).arrays()

    def _present(self, epochs: np.ndarray, samples: np.ndarray) -> dict[str, np.ndarray]:
        """(B,) bool for each input: which samples have the image and do not hide it at random."""
        present = {name: self.index.select(f"{name}_size", samples) > 0 for name in self.inputs}
        if self.changes is None or len(self.inputs) < 2:
            return present
        for index, name in enumerate(self.inputs):
            chance = hash_of(self.changes.seed, epochs, samples, _DROP, index) / 2.0**64
            others = np.logical_or.reduce([present[other] for other in self.inputs if other != name])
            present[name] = present[name] & ~(others & (chance < self.changes.drop.get(name, 0.0)))
        return present

    def _decode(
        self,
        name: str,
        samples: np.ndarray,
        present: np.ndarray,
        buffer: np.ndarray,
        numbers: list[list[float]] | None,
        broken: list[str],
    ) -> Images:
        """Decode the present images to the beginning of ``buffer`` (B, S, S, 3), in the order on disk.

        All are read and checked first. Reading between two decodings took twice as long, since it left the CPU's
        caches.
        """
        rows = np.flatnonzero(present)
        decoded = np.ones(len(rows), dtype=bool)
        slots = np.argsort(samples[rows], kind="stable")
        order = samples[rows[slots]]
        jpegs = self.shards.read_all(name, order)
        headers = [_checked(jpeg) for jpeg in jpegs]
        for slot, sample, jpeg, header in zip(slots.tolist(), order.tolist(), jpegs, headers, strict=True):
            try:
                if isinstance(header, BrokenJpeg):
                    raise header
                image = decode_checked(jpeg, header)
            except BrokenJpeg as error:
                broken.append(f"{self.index.key(sample)}.{name}: {error}")
                decoded[slot] = False
                continue
            if self.augment is None or numbers is None:
                letterbox(image, self.image_size, buffer[slot])
            else:
                self.augment(image, buffer[slot], numbers[rows[slot]])
        if not decoded.all():
            buffer[: decoded.sum()] = buffer[: len(rows)][decoded]
            rows = rows[decoded]
        return Images(buffer[: len(rows)].transpose(0, 3, 1, 2), rows)


def _checked(jpeg: bytes) -> JpegHeader | BrokenJpeg:
    """The image's header, or the reason not to decode it."""
    try:
        return check(jpeg)
    except BrokenJpeg as error:
        return error
