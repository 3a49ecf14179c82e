"""Photos from disk as upright 8-bit RGB, in bounded memory."""

import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from stat import S_ISREG

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from mivolo_lite.errors import UserError
from mivolo_lite.images.hdr import hdr_transfer
from mivolo_lite.images.jpeg import MAX_MEGAPIXELS, BrokenJpeg, check, check_size, decode_checked, is_jpeg, verify
from mivolo_lite.images.kind import kind_of
from mivolo_lite.images.orientation import orientation_of, upright
from mivolo_lite.images.profiles import transform_of
from mivolo_lite.shards.rejects import Rejected

_MAX_FILE_BYTES = 1 << 28
_STRIP_ROWS = 256
# the formats of photos; Pillow also opens formats that start other programs
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
_PLUGGED_IN = ("AVIF", "HEIF")  # if Pillow supports them
_READ = ("a PNG", "a WebP", "a TIFF", "a BMP", "a GIF", "an AVIF")
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_WHITE_IS_ZERO = 0
"""TIFF's PhotometricInterpretation of a grey image whose 0 is white."""


class UnusablePhoto(Rejected):
    """A photo that cannot be read, with the reason."""


@dataclass(frozen=True)
class Photo:
    """The file of a photo, and its pixels.

    Attributes:
        data: the file's bytes.
        image: (H, W, 3) uint8 sRGB, turned upright as its EXIF data say.
    """

    data: bytes
    image: np.ndarray


def check_limit(max_megapixels: float) -> None:
    """Raise UserError for a limit that is not above 0."""
    if not max_megapixels > 0:  # nor nan
        raise UserError(f"--max_megapixels {max_megapixels}: give the largest size in millions of pixels, above 0")


def read_photo(path: Path, max_megapixels: float = MAX_MEGAPIXELS) -> Photo:
    """Reads a photo. Its size is checked before anything is decoded.

    Grey, CMYK and palette photos become RGB, and colours of an embedded profile become sRGB. 16 bits are scaled to 8.
    Transparency becomes black, like blanked areas of crops. Animations are read by their first frame, photos with a
    gain map by their SDR image. HEIC needs pillow-heif, and is rotated by its own transformation box instead of EXIF,
    as the format requires.

    Raises:
        UnusablePhoto: no such file, too large, damaged, HDR (PQ or HLG), or of a kind not named above.
    """
    return photo_of(read_bytes(path), max_megapixels)


def read_bytes(path: Path) -> bytes:
    """The bytes of an image file. Raises UnusablePhoto if it cannot be read or is too large."""
    try:
        status = path.stat()
        if not S_ISREG(status.st_mode):  # reading a named pipe would block
            raise UnusablePhoto("is a folder, a pipe or a device, not a file")
        if status.st_size > _MAX_FILE_BYTES:
            raise UnusablePhoto(f"file of more than {_MAX_FILE_BYTES >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise UnusablePhoto(f"cannot be read: {error.strerror}") from None
    except ValueError as error:  # a name with a null byte
        raise UnusablePhoto(f"cannot be read: {error}") from None


def photo_of(data: bytes, max_megapixels: float = MAX_MEGAPIXELS) -> Photo:
    """The photo in a file's bytes, as ``read_photo`` reads it. Raises UnusablePhoto with the reason."""
    try:
        return _read_jpeg(data, max_megapixels) if is_jpeg(data) else _read_other(data, max_megapixels)
    except BrokenJpeg as error:
        raise UnusablePhoto(str(error)) from None


def image_of(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an opened image, as ``read_photo`` has it. Raises UnusablePhoto likewise."""
    try:
        check_size(*image.size, MAX_MEGAPIXELS)
        pixels = _pixels(image)
    except BrokenJpeg as error:
        raise UnusablePhoto(str(error)) from None
    return upright(pixels, orientation_of(image))


def is_small_plain_jpeg(data: bytes, largest_side: int, max_megapixels: float = MAX_MEGAPIXELS) -> bool:
    """Whether a file's bytes are an upright JPEG of at most such sides, which can be stored as it is.

    Raises:
        UnusablePhoto: a JPEG that is damaged or too large.
    """
    if not is_jpeg(data):
        return False
    try:
        header = check(data, max_megapixels)
        if not header.is_plain or max(header.width, header.height) > largest_side:
            return False
        verify(data)
    except BrokenJpeg as error:
        raise UnusablePhoto(str(error)) from None
    return True


def _read_jpeg(data: bytes, max_megapixels: float) -> Photo:
    header = check(data, max_megapixels)
    if header.is_rgb:
        return Photo(data, decode_checked(data, header))
    return _read_other(data, max_megapixels)  # libjpeg-turbo does not turn CMYK into RGB


def _read_other(data: bytes, max_megapixels: float) -> Photo:
    if transfer := hdr_transfer(data):
        raise UnusablePhoto(f"HDR ({transfer}), whose levels are not those of sRGB; save it as SDR")
    is_heic = kind_of(data) == "a HEIC"
    _load_plugins()
    if is_heic and "HEIF" not in Image.OPEN:
        raise UnusablePhoto('unreadable image: it is a HEIC, which needs: pip install "mivolo-lite[heic]"')
    formats = [*_FORMATS, *(name for name in _PLUGGED_IN if name in Image.OPEN)]
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(BytesIO(data), formats=formats) as opened:
            check_size(*opened.size, max_megapixels)
            pixels = _pixels(opened)
            # Read last: Pillow rotates a TIFF while loading it, and then removes the orientation.
            return Photo(data, upright(pixels, orientation_of(opened)))
    except (UnusablePhoto, BrokenJpeg):
        raise
    except UnidentifiedImageError:  # its message has a memory address and no reason
        kind = kind_of(data)
        damaged = ", damaged" if is_heic or kind in _READ else ""
        other = " or of pixels that are not read; save it as a PNG" if kind == "a TIFF" else ""  # as float16
        raise UnusablePhoto(f"unreadable image: it is {kind}{damaged}{other}") from None
    except Image.DecompressionBombError:  # Pillow's own limit, 179 million pixels
        raise UnusablePhoto(f"more than {max_megapixels:g} megapixels") from None
    # Pillow's decoders raise any exception for a damaged file, which must not end a long packing.
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UnusablePhoto(f"unreadable image: {reason}") from None


@cache
def _load_plugins() -> None:
    """Let Pillow open AVIF, if it was built with it, and HEIC, if pillow-heif is installed."""
    Image.init()
    with suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()


def _pixels(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 RGB, converted in strips, since every step of the conversion copies its input."""
    image.load()
    width, height = image.size
    in_eight_bits = _in_eight_bits(image) if image.mode in _SIXTEEN_BIT else None
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _STRIP_ROWS):
        bottom = min(top + _STRIP_ROWS, height)
        pixels[top:bottom] = np.asarray(_as_rgb(image.crop((0, top, width, bottom)), in_eight_bits))
    return pixels


def _in_eight_bits(image: Image.Image) -> np.ndarray:
    """(65536,) uint8: table from Pillow's levels of a 16-bit grey image to 8 bits."""
    tags = getattr(image, "tag_v2", {})
    white = (1 << tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]) - 1
    levels = np.minimum(np.arange(1 << 16), white)
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO:
        levels = white - levels
    eight_bits = ((levels * 255 + white // 2) // white).astype(np.uint8)
    if "transparency" in image.info:
        eight_bits[image.info["transparency"]] = 0
    return eight_bits


def _as_rgb(image: Image.Image, in_eight_bits: np.ndarray | None) -> Image.Image:
    profile = image.info.get("icc_profile")
    if in_eight_bits is not None:
        image = Image.fromarray(in_eight_bits[np.asarray(image)])
    if image.mode in ("I", "F"):
        raise UnusablePhoto(f"32 bits a pixel ({image.mode}), whose white is unknown")
    transform = transform_of(profile, {"CMYK": "CMYK", "1": "L", "L": "L", "LA": "L"}.get(image.mode, "RGB"))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image.convert("RGB") if transform is None else transform.apply(image.convert(transform.input_mode))
