"""Decodes JPEG bytes to upright pixels, by libjpeg-turbo, in bounded memory and time."""

import re
from collections.abc import Iterator
from itertools import islice
from struct import Struct
from typing import NamedTuple

import numpy as np
import simplejpeg

from mivolo_lite.images.kind import kind_of
from mivolo_lite.images.orientation import UPRIGHT, orientation_in, upright
from mivolo_lite.images.profiles import in_srgb, transform_of

MAX_MEGAPIXELS = 64.0
"""Default limit of every decoder in megapixels. Decoding takes at most 0.6 GB for such a JPEG, and 1 GB for a WebP."""

MAX_SCANS = 100
"""Limit of scans, each of which costs a pass over all pixels. Encoders write about 10; 64 KB may have 6,000."""

_SEGMENT = Struct(">BBH").unpack_from  # 0xFF, marker, length from here on
# libjpeg skips what lies between segments. Before these, 0xFF starts none: escaped data, fill bytes, restarts.
_NO_SEGMENT = frozenset((0x00, 0x01, *range(0xD0, 0xD9), 0xFF))
_NEXT = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])(..)", re.DOTALL)  # marker, length
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_END_OF_IMAGE, _START_OF_SCAN, _APP1, _APP2 = 0xD9, 0xDA, 0xE1, 0xE2
_START_OF_IMAGE = b"\xff\xd8"
_EXIF, _PROFILE = b"Exif\0\0", b"ICC_PROFILE\0"


class BrokenJpeg(Exception):
    """The bytes are no complete JPEG, or too costly to decode; the message has the reason."""


class JpegHeader(NamedTuple):
    """The header of a JPEG.

    Attributes:
        width: in pixels as stored, before rotation.
        height: in pixels as stored.
        mode: of its pixels: ``RGB``, ``L`` (grey) or ``CMYK``.
        orientation: EXIF's, 1 (upright) to 8.
        profile: the embedded colour profile; None for none, and for that of sRGB.
    """

    width: int
    height: int
    mode: str
    orientation: int
    profile: bytes | None

    @property
    def is_rgb(self) -> bool:
        """Whether its pixels are RGB or grey; CMYK needs a conversion."""
        return self.mode != "CMYK"

    @property
    def is_plain(self) -> bool:
        """Whether it needs no rotation and no colour conversion, so that any decoder shows it correctly."""
        return self.is_rgb and self.orientation == UPRIGHT and self.profile is None


def is_jpeg(data: bytes) -> bool:
    """Whether bytes start as a JPEG does."""
    return data.startswith(_START_OF_IMAGE)


def decode(data: bytes, max_megapixels: float = MAX_MEGAPIXELS) -> np.ndarray:
    """JPEG bytes as (H, W, 3) uint8 sRGB, with the EXIF orientation applied; grey images are expanded.

    Raises:
        BrokenJpeg: no JPEG, truncated, damaged, or rejected by ``check``.
    """
    return decode_checked(data, check(data, max_megapixels))


def decode_checked(data: bytes, header: JpegHeader) -> np.ndarray:
    """``decode`` after ``check``."""
    try:
        pixels = simplejpeg.decode_jpeg(data, colorspace="RGB")
    except ValueError as error:
        raise _broken(error) from None
    if (transform := transform_of(header.profile, header.mode)) is not None:
        pixels = in_srgb(pixels, transform)
    return pixels if header.orientation == UPRIGHT else upright(pixels, header.orientation)


def verify(data: bytes) -> None:
    """Raise BrokenJpeg if ``decode`` would, in at most half of its time.

    All coefficients are decoded, but only to an eighth of the size and without colours.
    """
    try:
        simplejpeg.decode_jpeg(data, colorspace="GRAY", min_height=1, min_width=1)
    except ValueError as error:
        raise _broken(error) from None


def check(data: bytes, max_megapixels: float = MAX_MEGAPIXELS) -> JpegHeader:
    """The header of a JPEG that can be decoded in bounded memory and time.

    Raises:
        BrokenJpeg: no JPEG, more than ``max_megapixels``, or more than ``MAX_SCANS`` scans.
    """
    if not is_jpeg(data):
        raise BrokenJpeg(f"unreadable JPEG: it is {kind_of(data)}")
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise _broken(error) from None
    check_size(width, height, max_megapixels)
    exif, profile, scans = _walk(data)
    if scans > MAX_SCANS:
        raise BrokenJpeg(f"more than {MAX_SCANS} scans, each of which is a pass over all pixels")
    orientation = UPRIGHT if exif is None else orientation_in(exif)
    mode = {"Gray": "L", "CMYK": "CMYK", "YCCK": "CMYK"}.get(colours, "RGB")
    return JpegHeader(width, height, mode, orientation, profile if transform_of(profile, mode) else None)


def check_size(width: int, height: int, max_megapixels: float) -> None:
    """Raise BrokenJpeg if an image is larger than the limit."""
    if width * height > max_megapixels * 1e6:
        raise BrokenJpeg(f"{width}x{height} pixels, more than {max_megapixels:g} megapixels")


def _broken(error: ValueError) -> BrokenJpeg:
    return BrokenJpeg(f"unreadable JPEG: {str(error).strip().rstrip('.').lower()}")


def _walk(data: bytes) -> tuple[bytes | None, bytes | None, int]:
    """The EXIF data and the colour profile, or None, and the number of scans that libjpeg would decode.

    Scans are counted to ``MAX_SCANS + 1``. On a face of 112 px, this plain loop takes 1 % of the time of decoding; a
    generator or a search through the whole file took 4 %.
    """
    exif, profile_parts, scans, frame, components, offset = None, [], 0, None, 0, 2
    while offset + 10 <= len(data):
        start, marker, length = _SEGMENT(data, offset)
        if start != 0xFF or marker in _NO_SEGMENT:
            segment = _NEXT.search(data, offset)
            if segment is None:
                break
            offset = segment.start()
        elif marker == _START_OF_SCAN:
            # libjpeg decodes one scan if it has all components, and otherwise all scans.
            all_in_one = data[offset + 4] == components and frame not in _PROGRESSIVE
            scans = 1 if all_in_one else sum(1 for _ in islice(_scans(data, offset), MAX_SCANS + 1))
            break
        elif marker == _END_OF_IMAGE:
            break
        else:
            if marker in _FRAMES:
                frame, components = marker, data[offset + 9]
            elif marker == _APP1 and exif is None and data.startswith(_EXIF, offset + 4):
                exif = data[offset + 4 : offset + 2 + length]
            elif marker == _APP2 and data.startswith(_PROFILE, offset + 4):
                profile_parts.append(data[offset + 16 : offset + 2 + length])  # number, count, content
            offset += 2 + length
    return exif, b"".join(part[2:] for part in sorted(profile_parts)) or None, scans


def _scans(data: bytes, offset: int) -> Iterator[int]:
    """The offset of each scan from ``offset`` to the end of the image, after which other data may follow."""
    while (segment := _NEXT.search(data, offset)) and segment[1][0] != _END_OF_IMAGE:
        if segment[1][0] == _START_OF_SCAN:
            yield segment.start()
        offset = segment.start() + 2 + int.from_bytes(segment[2])
