"""The two ways to read training data, behind one face: an index and its exact order, or stock webdataset."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mivolo_lite.data.batch import Batch
from mivolo_lite.data.dataset import ShardDataset
from mivolo_lite.data.index import ShardIndex
from mivolo_lite.data.loader import DataConfig
from mivolo_lite.data.order import GlobalOrder
from mivolo_lite.data.sampler import BatchPlan, TrainSampler
from mivolo_lite.data.stream import check_address, stream_loader
from mivolo_lite.data.task_labels import Classes, count_people, training_columns
from mivolo_lite.data.workers import BatchLoader
from mivolo_lite.errors import UserError


class IndexReader:
    """Every sample exactly once an epoch, in an order that no rank, worker or interruption can change.

    Args:
        config: where the data is and how it is read.
        seed: of the order and the changes.
        classes: the tasks beside age and gender whose labels the batches carry.

    Attributes:
        samples: in one epoch.
        digest: names the data; part of every checkpoint.
        crop_policy: how the crops were made.
        people: how many there are to be told apart.
    """

    def __init__(self, config: DataConfig, seed: int, classes: Classes | None = None):
        self.config, self.seed = config, seed
        self.index = ShardIndex.load(config.train, config.cache)
        self.tasks = training_columns(self.index, classes or {})
        self.samples, self.digest = len(self.index), self.index.digest
        self.crop_policy: dict[str, Any] = self.index.info["crop_policy"]
        self.people = count_people(self.index)
        if self.index.is_remote:
            self._check_cache()

    def age_counts(self, min_age: int, max_age: int) -> np.ndarray:
        """(max_age - min_age + 1,) how many samples have each age."""
        return self.index.age_counts(min_age, max_age)

    def batches(
        self, inputs: Sequence[str], plan: BatchPlan, rank: int, samples_seen: int, steps: int
    ) -> Iterable[Batch]:
        """One rank's micro-batches for the next ``steps`` optimizer steps."""
        config = self.config
        order = GlobalOrder(self.index.shard_sizes, self.seed, config.block_samples, config.window_blocks)
        dataset = ShardDataset(
            self.index, inputs, config.image_size, config.changes(self.seed), config.block_samples, self.tasks
        )
        return BatchLoader(dataset, TrainSampler(order, plan, rank, samples_seen, steps), config.workers)

    def _check_cache(self) -> None:
        """Raise UserError for a cache so small that most blocks would be fetched anew for every batch."""
        config, info = self.config, self.index.info
        in_use = min(
            2 * config.window_blocks * config.block_samples / self.samples, 1
        )  # where one window meets another
        needed = (info["index"]["bytes"] + in_use * sum(shard["bytes"] for shard in info["shards"])) / 1e9
        if config.cache.gb < needed:
            raise UserError(
                f"data.cache.gb {config.cache.gb:g}: the index and two windows of blocks take {needed:.3g} GB; "
                "allow more, or make data.window_blocks smaller"
            )


class StreamReader:
    """What webdataset gives; ``stream_loader`` says what it does not. Attributes and methods as in ``IndexReader``."""

    def __init__(self, config: DataConfig, seed: int, classes: Classes | None = None):
        if config.stream_samples is None:
            raise UserError("data.stream_samples: a stream cannot count itself; say how many samples make an epoch")
        if None in (classes or {}).values():
            raise UserError(
                "data.reader: a stream cannot count the people in it; train an embedding with reader: index"
            )
        check_address(config.train)
        self.config, self.seed, self.classes = config, seed, classes
        self.samples, self.digest = config.stream_samples, f"stream:{config.train}"
        self.crop_policy: dict[str, Any] = {}
        self.people = 0

    def age_counts(self, min_age: int, max_age: int) -> np.ndarray:
        """Every age alike, since the labels are unknown before they are read."""
        return np.ones(max_age - min_age + 1, dtype=np.int64)

    def batches(
        self, inputs: Sequence[str], plan: BatchPlan, rank: int, samples_seen: int, steps: int
    ) -> Iterable[Batch]:
        """One rank's micro-batches, without end. Where a resumed run stood does not matter to it."""
        config = self.config
        return stream_loader(
            config.train,
            inputs,
            config.image_size,
            plan.micro_batch,
            config.augment,
            self.seed,
            config.workers,
            self.classes,
        )


READERS: dict[str, type[IndexReader] | type[StreamReader]] = {"index": IndexReader, "stream": StreamReader}
