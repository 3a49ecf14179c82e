"""The loaders of training and evaluation: samplers and data sets behind torch's worker processes.

They are never handed to ``accelerator.prepare``: Accelerate would deal the batches out a second time, or read them all
on one rank. Every rank already reads its own samples and no others.
"""

from dataclasses import dataclass, field
from typing import Literal

import cv2
import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt
from torch.utils.data import DataLoader

from mivolo_lite.data.batch import Batch
from mivolo_lite.data.dataset import ShardDataset, TrainingChanges
from mivolo_lite.data.index import ShardIndex
from mivolo_lite.data.sampler import EvalSampler, TrainSampler
from mivolo_lite.data.transforms import AugmentConfig


@dataclass
class DataConfig:
    """Where the data is and how it is read.

    Attributes:
        train: folder of indexed shards; with ``reader: stream``, any address that webdataset takes.
        val: folder of indexed shards to evaluate on.
        image_size: side of the model's square pictures in pixels.
        reader: ``index`` is exact, resumable and elastic; ``stream`` is stock webdataset, for sources that cannot seek.
        stream_samples: samples in an epoch of ``reader: stream``, which cannot count them itself.
        workers: decoding processes of each rank; about one for 2,500 pictures a second.
        block_samples: samples fetched and shuffled as one block.
        window_blocks: blocks shuffled together.
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
) -> DataLoader:
    """Every sample of the index once, over all ranks."""
    dataset = ShardDataset(index, inputs, image_size)
    return batch_loader(dataset, EvalSampler(len(index), batch_size, rank, world_size), workers)


def batch_loader(dataset: ShardDataset, sampler: TrainSampler | EvalSampler, workers: int) -> DataLoader:
    """Batches as the sampler deals them, decoded by worker processes."""
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if workers else None,
        worker_init_fn=_one_thread,
        # Without its own generator, making an iterator would draw from the global one and shift the model's dropout.
        generator=torch.Generator(),
    )


def _as_it_is(batch: Batch) -> Batch:
    return batch


def _one_thread(_worker: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
