"""What a run says of its data, and the loader of an evaluation."""

from dataclasses import dataclass, field
from typing import Literal

from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt

from mivolo_lite.data.cache import CacheConfig
from mivolo_lite.data.dataset import ShardDataset, TrainingChanges
from mivolo_lite.data.index import ShardIndex
from mivolo_lite.data.sampler import EvalSampler
from mivolo_lite.data.transforms import AugmentConfig
from mivolo_lite.data.workers import BatchLoader


@dataclass
class DataConfig:
    """Where the data is and how it is read.

    Attributes:
        train: folder of indexed shards, or ``s3://``, ``gs://``, ``https://``, ``hf://``; with ``reader: stream``, any
            address that webdataset takes.
        val: the same to evaluate on.
        image_size: side of the model's square pictures in pixels.
        reader: ``index`` is exact, resumable and elastic; ``stream`` is stock webdataset, for sources that cannot seek.
        stream_samples: samples in an epoch of ``reader: stream``, which cannot count them itself.
        workers: decoding processes of each rank; about one for 2,500 pictures a second.
        block_samples: samples fetched and shuffled as one block.
        window_blocks: blocks shuffled together.
        cache: where each node keeps what it fetched from a URL.
        drop_face: probability of hiding the face from a model with two inputs.
        drop_body: probability of hiding the body likewise.
        augment: random changes to the training pictures.
    """

    train: str = ""
    val: str = ""
    image_size: PositiveInt = 112
    reader: Literal["index", "stream"] = "index"
    stream_samples: PositiveInt | None = None
    workers: NonNegativeInt = 2
    block_samples: PositiveInt = 256
    window_blocks: PositiveInt = 64
    cache: CacheConfig = field(default_factory=CacheConfig)
    drop_face: ClosedUnitInterval = 0.0
    drop_body: ClosedUnitInterval = 0.0
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def changes(self, seed: int) -> TrainingChanges:
        """What training does to its samples by chance."""
        return TrainingChanges(self.augment, {"face": self.drop_face, "body": self.drop_body}, seed)


def eval_loader(
    index: ShardIndex,
    inputs: tuple[str, ...],
    image_size: int,
    batch_size: int,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> BatchLoader:
    """Every sample of the index once, over all ranks."""
    dataset = ShardDataset(index, inputs, image_size)
    return BatchLoader(dataset, EvalSampler(len(index), batch_size, rank, world_size), workers)
