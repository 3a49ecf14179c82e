"""Progressive resizing: most steps on small images, the last ones on full size.

Howard et al., "Training Imagenet in 3 hours for 25 minutes", fast.ai, 2018; Tan and Le, "EfficientNetV2", ICML 2021.
The options have the names of MosaicML Composer's ``ProgressiveResizing``.
"""

from dataclasses import dataclass
from typing import Annotated

import torch

from mivolo_lite.errors import UserError, first_line
from mivolo_lite.estimator import Estimator
from mivolo_lite.images.packed import Images
from mivolo_lite.ranges import float_range, int_range


@dataclass
class ProgressiveResizingConfig:
    """Progressive resizing of the training images; evaluation has full size.

    Attributes:
        initial_scale: first side of the images as a share of ``data.image_size``, 0.6 for example; 1 switches it off.
        delay_fraction: share of the training before the images begin to grow.
        finetune_fraction: share of the training, the last part, that sees full size.
        size_increment: sides are multiples of so many pixels.
    """

    initial_scale: Annotated[float, float_range(0, 1, low_open=True)] = 1.0
    delay_fraction: Annotated[float, float_range(0, 1)] = 0.5
    finetune_fraction: Annotated[float, float_range(0, 1)] = 0.2
    size_increment: Annotated[int, int_range(1, 1024)] = 16

    def __post_init__(self) -> None:
        if self.delay_fraction + self.finetune_fraction > 1:
            raise UserError(
                "train.progressive_resizing: delay_fraction and finetune_fraction together are more than 1; make one "
                "of them smaller"
            )

    @property
    def is_on(self) -> bool:
        return self.initial_scale < 1

    def size(self, progress: float, image_size: int) -> int:
        """Side of the images in pixels.

        Args:
            progress: share of the training that is done, 0 to 1.
            image_size: the full side.
        """
        full_from = 1 - self.finetune_fraction
        if not self.is_on or progress >= full_from:
            return image_size
        scale = self.initial_scale
        if progress > self.delay_fraction:
            scale += (1 - scale) * (progress - self.delay_fraction) / (full_from - self.delay_fraction)
        side = scale * image_size
        return min(image_size, max(1, round(side / self.size_increment)) * self.size_increment)


def require_resizable(estimator: Estimator, size: int) -> None:
    """Raise UserError where a model does not take images of another side than its own.

    Args:
        estimator: whose mode and weights stay.
        size: the smallest side that it is to see.
    """
    was_training = estimator.training
    image = Images.of(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    try:
        with torch.no_grad():
            estimator.eval()(**dict.fromkeys(estimator.inputs, image))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(
            f"train.progressive_resizing: the model does not take images of {size} pixels ({first_line(error)}); set "
            "initial_scale to 1, or choose a convolutional backbone"
        ) from error
    finally:
        estimator.train(was_training)
