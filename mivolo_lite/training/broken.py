"""Training images that cannot be decoded: counted once over all ranks, named, and bearable up to a limit."""

import math
from collections.abc import Callable, Iterable

import torch
from accelerate.utils import gather_object

from mivolo_lite.errors import UserError
from mivolo_lite.training.run_folder import RunFolder

FEWEST = 10
"""So many are always borne: of a small data set, a few are a large share."""


class BrokenImages:
    """Those of a run. Each pass over the data meets them again, on any rank.

    Args:
        folder: gets ``broken.jsonl``.
        accelerator: joins the ranks.
        limit: below 1 the largest share of the samples, otherwise the largest number.
        samples: in the training data.
    """

    def __init__(self, folder: RunFolder, accelerator, limit: float, samples: int):
        self.folder, self.accelerator, self.limit = folder, accelerator, limit
        self.most = max(FEWEST, math.floor(limit * samples)) if 0 < limit < 1 else math.floor(limit)
        self.known = folder.broken_images()
        self.new: set[str] = set()

    def add(self, images: Iterable[str]) -> None:
        """Remember what this rank met, each as "key.input: reason"."""
        self.new |= set(images) - self.known

    def share(self, step: int, say: Callable[[str], None]) -> None:
        """Let all ranks know of all. All must call it.

        Args:
            step: for the log.
            say: gets a line where there are new ones.

        Raises:
            UserError: there are more than the limit, on all ranks alike.
        """
        met = torch.tensor(float(len(self.new)), device=self.accelerator.device)
        if not self.accelerator.reduce(met):
            return
        found = sorted(set(gather_object(sorted(self.new))) - self.known)
        self.new = set()
        self.known |= set(found)
        if self.accelerator.is_main_process:
            for image in found:
                self.folder.log_broken(step, image)
        say(
            f"{len(self.known)} training images cannot be decoded, the latest {found[-1]}; all are listed in "
            f"{self.folder.broken}"
        )
        if len(self.known) > self.most:
            raise UserError(
                f"data.train: {len(self.known)} images cannot be decoded, more than train.max_broken {self.limit:g} "
                f"allows ({self.most}); see {self.folder.broken}, and pack the data set again"
            )
