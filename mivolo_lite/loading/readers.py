"""The two readers of training data, with one interface: an index and its exact order, or stock webdataset."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mivolo_lite.credentials import without_credentials
from mivolo_lite.distributed.batch_plan import BatchPlan
from mivolo_lite.errors import UserError
from mivolo_lite.loading.batch import Batch
from mivolo_lite.loading.config import DataConfig
from mivolo_lite.loading.dataset import ShardDataset
from mivolo_lite.loading.mixed import MixedOrder, whole_shares
from mivolo_lite.loading.order import GlobalOrder
from mivolo_lite.loading.sampler import TrainSampler
from mivolo_lite.loading.stream import check_address, stream_loader
from mivolo_lite.loading.task_labels import Classes, training_columns
from mivolo_lite.loading.workers import BatchLoader
from mivolo_lite.randomness import seed_of
from mivolo_lite.shards.concat import ConcatIndex
from mivolo_lite.shards.index import ShardIndex


class IndexReader:
    """Every sample exactly once a pass over its data set, in an order that is independent of ranks, workers and
    restarts.

    With several data sets, each batch has their shares, and each set is passed at its own rate. An epoch of the run is
    as many samples as all sets have together.

    Args:
        config: the data options.
        seed: of the order and of the random changes.
        classes: the additional tasks whose labels are in the batches, and their classes.
        negated: the tasks whose labels change their sign when an image is flipped.

    Attributes:
        samples: in one epoch.
        digest: of the data and the shares; part of every checkpoint.
        crop_policy: how the crops were made; if data sets differ, by their folders.
        indexes: of the data sets; samples are numbered across them.
        people: number of identities.
    """

    def __init__(self, config: DataConfig, seed: int, classes: Classes | None = None, negated: tuple[str, ...] = ()):
        self.config, self.seed, self.negated = config, seed, negated
        sets = config.train_sets
        self.indexes = [config.load(train_set) for train_set in sets]
        self.shares = whole_shares([train_set.weight for train_set in sets])
        self._check_different()
        self._check_cache()
        self.index = ConcatIndex(self.indexes) if len(sets) > 1 else self.indexes[0]
        self.order = self._order()
        self.tasks = training_columns(self.indexes, classes or {})
        self.samples, self.digest = len(self.order), concat_digest(self.indexes, self.shares)
        self.crop_policy = self._crop_policy()
        self.people = sum(index.num_identities for index in self.indexes)

    def age_counts(self, min_age: int, max_age: int) -> np.ndarray:
        """(max_age - min_age + 1,) how many samples have each age, until each data set had one pass."""
        passes = [share / len(index) for share, index in zip(self.shares, self.indexes, strict=True)]
        counts = [
            index.age_counts(min_age, max_age) * (set_passes / min(passes))
            for index, set_passes in zip(self.indexes, passes, strict=True)
        ]
        return np.rint(sum(counts)).astype(np.int64)

    def passes(self, samples_seen: int) -> dict[str, float]:
        """The passes over each of several data sets, by its folder and folds; empty for a single one."""
        if not isinstance(self.order, MixedOrder):
            return {}
        by_set = zip(self.config.train_sets, self.indexes, self.order.before(samples_seen).tolist(), strict=True)
        return {
            str(replace(train_set, path=str(index.folder))): samples / len(index)
            for train_set, index, samples in by_set
        }

    def batches(
        self, inputs: Sequence[str], plan: BatchPlan, rank: int, samples_seen: int, steps: int
    ) -> Iterable[Batch]:
        """One rank's micro-batches for the next ``steps`` optimizer steps. Raises UserError where none can be mixed."""
        config = self.config
        if config.mixup.is_on and plan.micro_batch == 1:
            raise UserError(
                "data.mixup: a micro-batch of one sample has no other to mix it with; give a larger "
                "optim.micro_batch or optim.global_batch, or take fewer processes"
            )
        dataset = ShardDataset(
            self.index,
            inputs,
            config.image_size,
            config.changes(self.seed, self.negated),
            config.block_samples,
            self.tasks,
        )
        return BatchLoader(dataset, TrainSampler(self.order, plan, rank, samples_seen, steps), config.worker_count)

    def _order(self) -> GlobalOrder | MixedOrder:
        config = self.config
        # The first set has the run's seed, so that a list of one set has the same order as that set alone.
        seeds = [self.seed, *(seed_of(self.seed, set_number) for set_number in range(1, len(self.indexes)))]
        orders = [
            GlobalOrder(index.shard_sizes, seed, config.block_samples, config.window_blocks)
            for index, seed in zip(self.indexes, seeds, strict=True)
        ]
        return MixedOrder(orders, self.shares) if len(orders) > 1 else orders[0]

    def _crop_policy(self) -> dict[str, Any]:
        policies = {str(index.folder): index.info["crop_policy"] for index in self.indexes}
        first_policy = next(iter(policies.values()))
        return first_policy if all(policy == first_policy for policy in policies.values()) else policies

    def _check_different(self) -> None:
        """Raise UserError if the list contains a data set twice, or a copy of one."""
        folders: dict[str, Any] = {}
        for index in self.indexes:
            if index.digest in folders:
                raise UserError(
                    f"data.train: {folders[index.digest]} and {index.folder} are the same data set; "
                    "give it once, with a larger weight"
                )
            folders[index.digest] = index.folder

    def _check_cache(self) -> None:
        """Raise UserError if the cache is so small that most blocks would be fetched again for every batch."""
        config = self.config
        needed = sum(self._cache_needed(index) for index in self.indexes if index.is_remote) / 1e9
        if config.cache.gb < needed:
            raise UserError(
                f"data.cache.gb {config.cache.gb:g}: the index and two windows of blocks take {needed:.3g} GB; "
                "allow more, or make data.window_blocks smaller"
            )

    def _cache_needed(self, index: ShardIndex) -> float:
        """Bytes of the index and of the blocks of two windows."""
        in_use = min(2 * self.config.window_blocks * self.config.block_samples / len(index), 1)
        return index.info["index"]["bytes"] + in_use * sum(shard["bytes"] for shard in index.info["shards"])


def concat_digest(indexes: Sequence[ShardIndex], shares: Sequence[int]) -> str:
    """The digest of the data sets and their shares; for a single one, its digest."""
    if len(indexes) == 1:
        return indexes[0].digest
    return " + ".join(f"{share} x {index.digest}" for share, index in zip(shares, indexes, strict=True))


class StreamReader:
    """Batches of stock webdataset, with the limitations of ``stream_loader`` and the interface of ``IndexReader``."""

    def __init__(self, config: DataConfig, seed: int, classes: Classes | None = None, negated: tuple[str, ...] = ()):
        if config.stream_samples is None:
            raise UserError("data.stream_samples: a stream cannot count itself; say how many samples make an epoch")
        if not isinstance(config.train, str):
            raise UserError("data.train: reader: stream reads one address; leave it out for a list of data sets")
        if config.exclude:
            raise UserError("data.exclude: a stream has no index to leave samples out of; use reader: index")
        for name in ("drop_face", "drop_body"):
            if getattr(config, name):
                raise UserError(f"data.{name}: a stream hides no input; leave it out, or use reader: index")
        if config.mixup.is_on:
            raise UserError("data.mixup: a stream knows no epoch or sample to mix by; use reader: index")
        labelled = {name: choices for name, choices in (classes or {}).items() if choices is not None}
        if len(labelled) < len(classes or {}):
            raise UserError(
                "data.reader: a stream cannot count the people in it; train an embedding with reader: index"
            )
        check_address(config.train)
        self.config, self.seed, self.classes, self.negated = config, seed, labelled, negated
        self.samples, self.digest = config.stream_samples, without_credentials(f"stream:{config.train}")
        self.indexes: list[ShardIndex] = []
        self.crop_policy: dict[str, Any] = {}
        self.people = 0

    def age_counts(self, min_age: int, max_age: int) -> np.ndarray:
        """One for every age, since the labels are unknown before they are read."""
        return np.ones(max_age - min_age + 1, dtype=np.int64)

    def passes(self, samples_seen: int) -> dict[str, float]:
        """Nothing: there is one source."""
        return {}

    def batches(
        self, inputs: Sequence[str], plan: BatchPlan, rank: int, samples_seen: int, steps: int
    ) -> Iterable[Batch]:
        """One rank's micro-batches, endlessly. ``samples_seen`` is ignored."""
        return stream_loader(self.config, inputs, plan.micro_batch, self.seed, self.classes, self.negated)


READERS: dict[str, type[IndexReader] | type[StreamReader]] = {"index": IndexReader, "stream": StreamReader}
