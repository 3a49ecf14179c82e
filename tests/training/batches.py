"""Parts of batches, for tests that cut a step up."""

import torch

from mivolo_lite.batch_labels import AgeRange, TaskLabel
from mivolo_lite.images.packed import Images
from mivolo_lite.loading.batch import Batch


def part(batch, rows):
    """The samples in these rows, of a batch of which each sample has every image."""

    def cut(value):
        if isinstance(value, torch.Tensor):
            return value[rows]
        if isinstance(value, Images):
            return Images.of(value.pixels[rows])
        if isinstance(value, AgeRange | TaskLabel):
            return type(value)(**{name: cut(item) for name, item in vars(value).items()})
        return {name: cut(item) for name, item in value.items()} if isinstance(value, dict) else value

    return Batch(**{name: cut(value) for name, value in vars(batch).items()})
