"""Training images that cannot be decoded: counted once over all ranks, logged, and tolerated up to a limit."""

import math
from collections.abc import Callable, Iterable

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from mivolo_lite.errors import UserError
from mivolo_lite.training.run_folder import RunFolder

FEWEST = 10
"""This many are always tolerated: in a small data set, a few are a large share."""


class BrokenImages:
    """The undecodable images of a run. They recur in each epoch, on any rank.

    Args:
        folder: gets ``broken.jsonl``.
        accelerator: gathers over the ranks.
        limit: below 1 the largest share of the samples, otherwise the largest number.
        samples: in the training data.
    """

    def __init__(self, folder: RunFolder, accelerator: Accelerator, limit: float, samples: int):
        self.folder, self.accelerator, self.limit = folder, accelerator, limit
        self.max_count = max(FEWEST, math.floor(limit * samples)) if 0 < limit < 1 else math.floor(limit)
        self.reported = folder.broken_images()
        self.unreported: set[str] = set()

    def add(self, images: Iterable[str]) -> None:
        """Add images of this rank, each as "key.input: reason"."""
        self.unreported |= set(images) - self.reported

    def gather(self, step: int, log: Callable[[str], None]) -> None:
        """Merge the lists of all ranks. All ranks must call it.

        Args:
            step: for the log.
            log: called with a line if there are new ones.

        Raises:
            UserError: there are more than the limit; on all ranks.
        """
        met = torch.tensor(float(len(self.unreported)), device=self.accelerator.device)
        if not self.accelerator.reduce(met):
            return
        images = sorted(set(gather_object(sorted(self.unreported))) - self.reported)
        self.unreported = set()
        self.reported |= set(images)
        if self.accelerator.is_main_process:
            for image in images:
                self.folder.log_broken(step, image)
        log(
            f"{len(self.reported)} training images cannot be decoded, the latest {images[-1]}; all are listed in "
            f"{self.folder.broken}"
        )
        if len(self.reported) > self.max_count:
            raise UserError(
                f"data.train: {len(self.reported)} images cannot be decoded, more than train.max_broken {self.limit:g} "
                f"allows ({self.max_count}); see {self.folder.broken}, and pack the data set again"
            )
