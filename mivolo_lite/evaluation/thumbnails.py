"""Small images of a few samples for a report."""

from collections.abc import Sequence

from mivolo_lite.evaluation.robustness import CELLS, CorruptedDataset
from mivolo_lite.loading.batch import Batch
from mivolo_lite.loading.dataset import ShardDataset
from mivolo_lite.reporting.images import data_address
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.sample_ref import SampleRef

_SIDE = 128


def thumbnails(index: ShardIndex, samples: Sequence[int], inputs: Sequence[str]) -> list[str]:
    """For each sample, its first available image of ``inputs`` as a ``data:`` address of a JPEG; empty for none."""
    if not len(samples):
        return []
    batch = ShardDataset(index, inputs, _SIDE).read([SampleRef(0, int(sample)) for sample in samples])
    return [_first_image(batch, row, inputs) for row in range(len(batch))]


def corrupted_thumbnails(index: ShardIndex, sample: int, inputs: Sequence[str], side: int) -> dict[str, list[str]]:
    """A sample's first available image of ``inputs``, letterboxed to ``side``: under ``clean``, and for each corruption
    one for each strength."""
    batch = CorruptedDataset(index, inputs, side).read([SampleRef(0, int(sample))])
    images: dict[str, list[str]] = {}
    for row, name in enumerate(("clean", *(name for name, _ in CELLS))):
        images.setdefault(name, []).append(_first_image(batch, row, inputs))
    return images


def _first_image(batch: Batch, row: int, inputs: Sequence[str]) -> str:
    for images in (getattr(batch, name) for name in inputs):
        if len(position := (images.rows == row).nonzero()):
            return data_address(images.pixels[int(position)].movedim(0, -1).contiguous().numpy())
    return ""
