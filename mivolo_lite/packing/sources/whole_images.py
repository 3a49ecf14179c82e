"""Data sets whose images are face or body crops."""

from pathlib import Path
from typing import Any

from mivolo_lite.images.jpeg import MAX_MEGAPIXELS
from mivolo_lite.packing.crops import CropRules, check_cuts_nothing
from mivolo_lite.packing.decode import check_limit
from mivolo_lite.packing.sources.cutting import whole_jpeg
from mivolo_lite.packing.sources.source import Source


class WholeImageSource(Source):
    """Images that are stored byte for byte if they are small upright JPEGs, and as new JPEGs otherwise.

    Args:
        images: folder of the images.
        max_megapixels: larger images are rejected before they are decoded.
        crops: see ``CropRules``.
    """

    def __init__(self, images: Path, max_megapixels: float = MAX_MEGAPIXELS, **crops: Any):
        check_limit(max_megapixels)
        self.images, self.max_megapixels, self.rules = Path(images), max_megapixels, CropRules(**crops)
        check_cuts_nothing(self.rules)
        self.crop_policy = self.rules.policy() | {"face": "the data set's own image"}

    def jpeg(self, image: bytes) -> bytes:
        """The JPEG to store for an image file. Raises Rejected if it cannot be used."""
        return whole_jpeg(image, self.rules, self.max_megapixels)
