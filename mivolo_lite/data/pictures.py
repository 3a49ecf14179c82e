"""Whole pictures from disk as upright 8-bit RGB, in bounded memory."""

import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from mivolo_lite.data.jpeg import BrokenJpeg, decode

MAX_MEGAPIXELS = 64.0
"""Default limit: at most about 0.5 GB while such a picture is decoded, in every worker."""

_MAX_FILE_BYTES = 1 << 28
_STRIP_ROWS = 256
# Pillow would also open formats that start other programs; these are the ones that pictures of people come in.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


class UnusablePicture(Exception):
    """A picture that cannot be used, with the reason."""


@dataclass(frozen=True)
class WholePicture:
    """A picture as it lies on disk, and its pixels.

    Attributes:
        data: the file's bytes.
        image: (H, W, 3) uint8 RGB, turned upright as its EXIF data say.
        is_plain_jpeg: ``data`` is a JPEG that any decoder shows as ``image``, so that it can be stored as it is.
    """

    data: bytes
    image: np.ndarray
    is_plain_jpeg: bool


def read_picture(path: Path, max_megapixels: float = MAX_MEGAPIXELS) -> WholePicture:
    """Reads a picture. Its size is checked before anything is decoded.

    Grey, CMYK and palette pictures become RGB (embedded colour profiles are ignored), 16 bits are scaled to 8,
    transparency is put on black, which stands for "nothing here" in crops as well. Of an animation the first frame
    counts.

    Raises:
        UnusablePicture: no such file, too large, damaged, or of a kind not named above.
    """
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise UnusablePicture(f"file of more than {_MAX_FILE_BYTES >> 20} MiB")
        data = path.read_bytes()
    except OSError as error:
        raise UnusablePicture(f"cannot be read: {error.strerror}") from None
    except ValueError as error:  # a name with a null byte
        raise UnusablePicture(f"cannot be read: {error}") from None
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(BytesIO(data), formats=_FORMATS) as opened:
            width, height = opened.size
            if width * height > max_megapixels * 1e6:
                raise UnusablePicture(f"{width}x{height} pixels, more than {max_megapixels:g} megapixels")
            is_rgb_jpeg = opened.format == "JPEG" and opened.mode in ("RGB", "L")
            pixels = decode(data) if is_rgb_jpeg else _pixels(opened)
            # Read last: Pillow turns a TIFF upright while it loads it, and then takes the note away.
            orientation = opened.getexif().get(ExifTags.Base.Orientation, 1)
            return WholePicture(data, _upright(pixels, orientation), is_rgb_jpeg and orientation == 1)
    except UnusablePicture:
        raise
    # Pillow's decoders raise whatever a damaged file makes them stumble over; one file must not end a long packing.
    except Exception as error:
        raise UnusablePicture(_reason(error)) from None


def _reason(error: Exception) -> str:
    if isinstance(error, BrokenJpeg):
        return str(error)
    return f"unreadable picture: {str(error).partition(chr(10))[0] or type(error).__name__}"


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """The picture turned and mirrored as EXIF's orientation, 1 to 8, says; anything else leaves it as it is."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def _pixels(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 RGB. Converted in strips, since every step of a conversion copies what it is given."""
    image.load()
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _STRIP_ROWS):
        bottom = min(top + _STRIP_ROWS, height)
        pixels[top:bottom] = np.asarray(_as_rgb(image.crop((0, top, width, bottom))))
    return pixels


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BIT:
        levels = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise UnusablePicture(f"32 bits a pixel ({image.mode}), whose white is unknown")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image).convert("RGB")
    return image.convert("RGB")
