"""Which images a batch has none of."""

from torch import Tensor


def missing_everywhere(image: Tensor | None, has: Tensor | None) -> bool:
    """Whether no sample of the batch has this image.

    Reading the mask waits for the device. Models ask only in evaluation, where it may save a whole backbone.
    """
    return image is None or (has is not None and not has.any())
