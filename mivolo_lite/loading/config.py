"""The data options of a run."""

import os
from dataclasses import dataclass, field
from itertools import combinations
from math import isfinite
from typing import Annotated, Any, Literal

from mivolo_lite.loading.dataset import TrainingChanges
from mivolo_lite.loading.mixup import MixupConfig
from mivolo_lite.loading.transforms import AugmentConfig
from mivolo_lite.ranges import Probability, int_range
from mivolo_lite.shards.cache import CacheConfig
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.selection import load_selected


@dataclass(frozen=True)
class DataSetConfig:
    """A data set to train or to evaluate on.

    Attributes:
        path: folder of indexed shards, or their URL.
        weight: its share of the training samples, relative to the other sets' weights.
        folds: the folds to take of it; all samples where None.
    """

    path: str
    weight: float = 1.0
    folds: tuple[int, ...] | None = None

    def __str__(self) -> str:
        return self.path if self.folds is None else f"{self.path}, folds {', '.join(map(str, self.folds))}"

    @classmethod
    def read(cls, entry: Any) -> "DataSetConfig":
        """A folder, or ``{path: FOLDER, weight: NUMBER, folds: [0, 1]}``. Raises ValueError for anything else."""
        if isinstance(entry, DataSetConfig):
            return entry
        entry = {"path": entry} if isinstance(entry, str) else entry
        if not isinstance(entry, dict) or not entry.get("path") or not set(entry) <= {"path", "weight", "folds"}:
            raise ValueError(
                f"{entry!r:.80} is not a data set; give FOLDER, or {{path: FOLDER, weight: NUMBER, folds: [0, 1]}}"
            )
        weight = entry.get("weight", 1.0)
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not (is_number and isfinite(weight) and weight > 0):
            raise ValueError(f"{entry['path']}: weight {weight!r}: give a number over 0")
        return cls(str(entry["path"]), float(weight), _folds(entry))

    @classmethod
    def read_list(cls, entries: Any) -> list["DataSetConfig"]:
        """One data set, or a list of them, each as ``read`` takes it. Raises ValueError for anything else."""
        return [cls.read(entry) for entry in (entries if isinstance(entries, list) else [entries])]

    def shares_samples_with(self, other: "DataSetConfig") -> bool:
        """Whether both are of one folder, and one has a fold of the other."""
        folds = [set(data_set.folds) for data_set in (self, other) if data_set.folds is not None]
        same = os.path.realpath(self.path) == os.path.realpath(other.path)  # of a URL, compared as if it were a path
        return same and bool(folds) and bool(set.intersection(*folds))


def _folds(entry: dict[str, Any]) -> tuple[int, ...] | None:
    """The folds that an entry names. Raises ValueError for what is no list of numbers."""
    folds = entry.get("folds")
    if folds is None:
        return None
    if not isinstance(folds, list | tuple) or not folds or not all(type(fold) is int and fold >= 0 for fold in folds):
        raise ValueError(f"{entry['path']}: folds {folds!r:.60}: give a list such as [0, 1, 2]")
    return tuple(sorted(set(folds)))


@dataclass
class DataConfig:
    """Where the data is and how it is read.

    Attributes:
        train: folder of indexed shards, or ``s3://``, ``gs://``, ``https://``, ``hf://``; with ``reader: stream``, any
            address that webdataset takes, also ``pipe:COMMAND``, which runs it. Or a list of such data sets,
            ``[{path: A, weight: 2}, B]``, of which the batches hold samples in the proportion of the weights, 1 where
            none is given. ``{path: A, folds: [0, 1, 2, 3]}`` takes some folds of one packed with ``--folds``.
        val: the same to evaluate on: a folder, a URL, or ``{path: A, folds: [4]}``.
        exclude: list of samples to leave out of all of them, by their keys, one a line.
        image_size: side of the model's square images in pixels.
        reader: ``index`` is exact, resumable and elastic; ``stream`` is stock webdataset, for sources that cannot seek.
        stream_samples: samples in an epoch of ``reader: stream``, which cannot count them itself.
        workers: decoding processes of each rank. ``auto`` is one less than the CPUs that a rank with a GPU has, at most
            16, and one without a GPU. With the default augmentation, one delivers about 1,200 images a second that are
            stored at 448 px for a model of 224, and 6,400 that are stored at 200 for one of 112; only decoded and
            resized, 1,500 and 8,400.
        block_samples: samples fetched and shuffled as one block.
        window_blocks: blocks shuffled together.
        cache: where each node keeps what it fetched from a URL.
        drop_face: probability of hiding the face from a model with two inputs.
        drop_body: probability of hiding the body likewise.
        augment: random changes to the training images; in a configuration also the name of a preset, ``none``,
            ``light``, ``medium`` or ``strong``.
        mixup: mixes each training sample with another one of its batch.
    """

    train: list[DataSetConfig] | str = ""
    val: DataSetConfig | str = ""
    exclude: str | None = None
    image_size: Annotated[int, int_range(1, 4096)] = 112
    reader: Literal["index", "stream"] = "index"
    stream_samples: Annotated[int, int_range(1, 10**12)] | None = None
    workers: Literal["auto"] | Annotated[int, int_range(0, 1024)] = "auto"
    block_samples: Annotated[int, int_range(1)] = 256
    window_blocks: Annotated[int, int_range(1)] = 64
    cache: CacheConfig = field(default_factory=CacheConfig)
    drop_face: Probability = 0.0
    drop_body: Probability = 0.0
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    mixup: MixupConfig = field(default_factory=MixupConfig)

    def __post_init__(self) -> None:
        if isinstance(self.train, list | dict):
            self.train = DataSetConfig.read_list(self.train)
        if isinstance(self.val, dict):
            self.val = DataSetConfig.read(self.val)
        if self.val_set.weight != 1:
            raise ValueError(f"val: weight {self.val_set.weight:g}: is of several sets to train on; leave it out")
        for train_set in self.train_sets:
            if train_set.shares_samples_with(self.val_set):
                raise ValueError(f"val: {self.val_set} shares samples with data.train, {train_set}; take other folds")
        for first, second in combinations(self.train_sets, 2):
            if first.shares_samples_with(second):
                raise ValueError(f"train: {second} shares samples with {first}; name each fold once, with a weight")

    def load(self, data_set: DataSetConfig) -> ShardIndex:
        """The index of a data set, without what ``exclude`` names.

        Raises:
            UserError: as ``load_selected`` does.
        """
        return load_selected(data_set.path, self.cache, data_set.folds, self.exclude, "data.exclude")

    @property
    def worker_count(self) -> int:
        """Decoding processes; 1 for ``auto``, which ``training.auto_workers`` replaces where the CPUs are known."""
        return 1 if self.workers == "auto" else self.workers

    @property
    def train_sets(self) -> list[DataSetConfig]:
        """The data sets to train on, often one."""
        return self.train if isinstance(self.train, list) else [DataSetConfig(self.train)]

    @property
    def val_set(self) -> DataSetConfig:
        """The data set to evaluate on."""
        return self.val if isinstance(self.val, DataSetConfig) else DataSetConfig(self.val)

    def changes(self, seed: int, negated: tuple[str, ...] = ()) -> TrainingChanges:
        """The random changes of training to its samples; ``negated``: tasks whose labels a flip changes the sign of."""
        drop = {"face": self.drop_face, "body": self.drop_body}
        return TrainingChanges(self.augment, drop, seed, self.mixup, negated)
