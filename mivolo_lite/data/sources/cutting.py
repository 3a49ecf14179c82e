"""From a file to a person's crops, with a reason where that fails."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mivolo_lite.data.crops import Box, CropRules, cut_body, cut_face, encode
from mivolo_lite.data.pictures import UnusablePicture, WholePicture, read_picture
from mivolo_lite.data.sources.source import Rejected


def read_or_reject(path: Path, max_megapixels: float) -> WholePicture:
    """The picture in a file. Raises Rejected with the reason where it cannot be used."""
    try:
        return read_picture(path, max_megapixels)
    except UnusablePicture as error:
        raise Rejected(str(error)) from None


def keep_whole(picture: WholePicture, crop_size: float = math.inf) -> bytes:
    """The picture as an upright JPEG whose sides are at most ``crop_size``, byte for byte where that is possible."""
    if picture.is_plain_jpeg and max(picture.image.shape[:2]) <= crop_size:
        return picture.data
    return encode(picture.image, crop_size)


def cut_person(
    image: np.ndarray, face: Box | None, body: Box | None, others: Sequence[Box], rules: CropRules
) -> tuple[bytes | None, bytes | None]:
    """A person's face and body crop as JPEGs; None where there is no box or no usable crop.

    Args:
        image: (H, W, 3) uint8, the whole picture.
        face: the person's face.
        body: the person's body.
        others: faces and bodies of everybody else in the picture.
        rules: which boxes give a crop.

    Raises:
        Rejected: neither box gives a crop.
    """
    crops = (
        None if face is None else cut_face(image, face, rules),
        None if body is None else cut_body(image, body, face, others, rules),
    )
    if all(crop is None for crop in crops):
        raise Rejected(f"no usable crop: face {face}, body {body}, {image.shape[1]}x{image.shape[0]} pixels")
    return tuple(None if crop is None else encode(crop, rules.crop_size) for crop in crops)
