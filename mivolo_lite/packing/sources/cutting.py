"""A person's crops from an image file, or the reason why there are none."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import simplejpeg

from mivolo_lite.images.align import align, cut_corners
from mivolo_lite.packing.crops import Box, CropRules, NoCrop, cut_body, cut_face, encode
from mivolo_lite.packing.decode import is_small_plain_jpeg, photo_of
from mivolo_lite.shards.rejects import Rejected


@contextmanager
def _rejecting_impossible() -> Iterator[None]:
    """Raise ValueError as Rejected: the person is left out and counted, with the reason."""
    try:
        yield
    except ValueError as error:
        raise Rejected(str(error)) from None


def whole_jpeg(data: bytes, rules: CropRules, max_megapixels: float) -> bytes:
    """A file's image as an upright JPEG with sides of at most ``crop_size``: the file's bytes if possible.

    These are verified without decoding all pixels.

    Raises:
        Rejected: it cannot be used, or is smaller than a face may be.
    """
    if is_small_plain_jpeg(data, rules.crop_size, max_megapixels):
        jpeg = data
    else:
        jpeg = encode(photo_of(data, max_megapixels).image, rules.crop_size, rules.resample)
    height, width, *_ = simplejpeg.decode_jpeg_header(jpeg)
    if min(height, width) < rules.min_face:
        raise Rejected(f"under {rules.min_face} px")
    return jpeg


@_rejecting_impossible()
def aligned_jpeg(image: np.ndarray, landmarks: np.ndarray, rules: CropRules) -> bytes:
    """The face with these landmarks (5, 2), aligned to the template. Raises Rejected if that is impossible."""
    return encode(align(image, landmarks, rules.crop_size), rules.crop_size)


@_rejecting_impossible()
def rotated_jpeg(image: np.ndarray, corners: Sequence[float], rules: CropRules) -> bytes:
    """The face in a rotated box, see ``cut_corners``. Raises Rejected if the box has no area."""
    return encode(cut_corners(image, corners, rules.crop_size), rules.crop_size)


class Crops(NamedTuple):
    """A person's crops as JPEGs, None without a usable box; and (crop, reason) of unusable boxes."""

    face: bytes | None
    body: bytes | None
    missing: Sequence[tuple[str, str]] = ()


def cut_person(
    image: np.ndarray,
    face: Box | None,
    body: Box | None,
    other_people: Sequence[tuple[Box | None, Box | None]],
    rules: CropRules,
) -> Crops:
    """A person's face and body crop.

    Args:
        image: (H, W, 3) uint8, the photo.
        face: the person's face.
        body: the person's body.
        other_people: faces and bodies of the others in the photo.
        rules: which boxes give a crop.

    Raises:
        Rejected: neither box gives a crop.
    """
    cutters = {
        "face": lambda: None if face is None else cut_face(image, face, rules),
        "body": lambda: None if body is None else cut_body(image, body, face, *_faces_and_bodies(other_people), rules),
    }
    crops: dict[str, bytes | None] = {}
    missing = []
    for name, cutter in cutters.items():
        try:
            pixels = cutter()
        except NoCrop as reason:
            missing.append((name, str(reason)))
            pixels = None
        crops[name] = None if pixels is None else encode(pixels, rules.crop_size, rules.resample)
    if not any(crops.values()):
        raise Rejected(f"no usable crop: {_reasons(face, body, missing)} ({image.shape[1]}x{image.shape[0]} pixels)")
    return Crops(crops["face"], crops["body"], missing)


def _faces_and_bodies(people: Sequence[tuple[Box | None, Box | None]]) -> tuple[list[Box], list[Box]]:
    """All faces, and all bodies."""
    return [face for face, _ in people if face is not None], [body for _, body in people if body is not None]


def _reasons(face: Box | None, body: Box | None, missing: list[tuple[str, str]]) -> str:
    boxes = {"face": face, "body": body}
    reasons = [
        f"{name} ({', '.join(f'{edge:g}' for edge in boxes[name] or ())}) is {reason}" for name, reason in missing
    ]
    return "; ".join(reasons) or "there is no box; --whole face takes the whole image"
