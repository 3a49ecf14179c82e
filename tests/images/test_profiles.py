"""Photos with a colour profile are read as the colours that it says."""

import struct
from io import BytesIO
from itertools import product

import numpy as np
import pytest
from PIL import Image, ImageCms

from mivolo_lite.images.jpeg import decode
from mivolo_lite.images.profiles import transform_of
from mivolo_lite.packing.decode import is_small_plain_jpeg, photo_of

SRGB, DISPLAY_P3 = [(0.64, 0.33), (0.3, 0.6), (0.15, 0.06)], [(0.68, 0.32), (0.265, 0.69), (0.15, 0.06)]
"""x and y of the primaries."""
D65, D50 = np.array([0.9505, 1, 1.0888]), np.array([0.9642, 1, 0.8249])
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
SKIN = [(200, 120, 90), (231, 180, 152), (90, 60, 50), (128, 128, 128)]


def xyz_of(primaries) -> np.ndarray:
    """(3, 3) from linear RGB to XYZ, whose white is D65."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    return columns * np.linalg.solve(columns, D65)


def profile_of(space: bytes, tags: dict[bytes, bytes], padding: int = 0) -> bytes:
    """An ICC profile of version 4: the header, the table of the tags, the tags."""
    tags = {b"desc": b"mluc" + bytes(12), b"wtpt": numbers(D50)} | tags | {b"pad ": b"data" + bytes(4 + padding)}
    table, data, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, tag in tags.items():
        table, data = table + name + struct.pack(">II", start + len(data), len(tag)), data + tag + bytes(-len(tag) % 4)
    head = struct.pack(">I4xI4s4s4s", start + len(data), 0x04000000, b"mntr", space, b"XYZ ")
    head = (head + bytes(12) + b"acsp").ljust(68, b"\0") + numbers(D50)[8:]
    return head.ljust(128, b"\0") + table + data


def numbers(values) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def rgb_profile(primaries, padding: int = 0) -> bytes:
    """With sRGB's curve."""
    adapted = np.linalg.inv(BRADFORD) @ np.diag((BRADFORD @ D50) / (BRADFORD @ D65)) @ BRADFORD @ xyz_of(primaries)
    curve = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    curve = b"para" + bytes(4) + struct.pack(">HH", 3, 0) + numbers(curve)[8:]
    columns = {name + b"XYZ": numbers(column) for name, column in zip((b"r", b"g", b"b"), adapted.T, strict=True)}
    return profile_of(b"RGB ", columns | {name + b"TRC": curve for name in (b"r", b"g", b"b")}, padding)


def grey_profile(gamma: float) -> bytes:
    return profile_of(b"GRAY", {b"kTRC": b"curv" + bytes(4) + struct.pack(">IHxx", 1, round(256 * gamma))})


def ink_profile() -> bytes:
    """Of a printer whose full cyan, magenta and yellow still show a quarter of the light, and black none."""
    grid = []
    for *inks, black in product((0, 1), repeat=4):
        light = (1 - 0.75 * np.array(inks)) * (1 - black)
        grid += [round(255 * value / 1.99997) for value in xyz_of(SRGB) @ light * D50 / D65]
    line = bytes(range(256))
    unit = struct.pack(">9i", *(65536 if place % 4 == 0 else 0 for place in range(9)))
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + unit + 4 * line + bytes(grid) + 3 * line
    return profile_of(b"CMYK", {b"A2B0": table})


def linear(levels) -> np.ndarray:
    levels = np.asarray(levels) / 255
    return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)


def as_display_p3(colours) -> np.ndarray:
    """sRGB's levels as those of Display P3."""
    light = linear(colours) @ (np.linalg.inv(xyz_of(DISPLAY_P3)) @ xyz_of(SRGB)).T
    return np.round(255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055))


def scene(colours=SKIN) -> Image.Image:
    """A strip of each colour."""
    return Image.fromarray(np.repeat(np.uint8(colours)[None], 32, axis=0).repeat(32, axis=1))


def file_of(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    file = BytesIO()
    image.save(file, kind, **({"quality": 98} | options))
    return file.getvalue()


def colours_in(image: np.ndarray) -> np.ndarray:
    return image[16, 16::32].astype(int)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_display_p3_is_read_as_srgb(kind):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow does not write {kind}")
    photo = photo_of(file_of(scene(as_display_p3(SKIN)), kind, icc_profile=rgb_profile(DISPLAY_P3)))
    assert np.abs(colours_in(photo.image) - SKIN).max() <= 4
    assert np.abs(as_display_p3(SKIN) - SKIN).max() > 10 and not is_small_plain_jpeg(photo.data, 200)


LEVELS = np.uint8([10, 60, 128, 200, 255])


@pytest.mark.parametrize("mode, kind", [("L", "JPEG"), ("L", "PNG"), ("LA", "PNG"), ("I;16", "PNG"), ("L", "TIFF")])
def test_grey_is_read_as_its_profile_says(mode, kind):
    pixels = np.repeat(np.repeat(LEVELS[None], 32, axis=0), 32, axis=1)
    image = Image.fromarray(pixels * np.uint16(257)) if mode == "I;16" else Image.fromarray(pixels).convert(mode)
    photo, same, none = (
        photo_of(file_of(image, kind, **profile))
        for profile in ({"icc_profile": grey_profile(1.0)}, {"icc_profile": grey_profile(2.2)}, {})
    )
    for channel in colours_in(photo.image).T:
        assert np.abs(linear(channel) - LEVELS / 255).max() < 0.01
    assert np.abs(colours_in(same.image) - colours_in(none.image)).max() <= 9  # sRGB's curve, but in the dark
    assert not is_small_plain_jpeg(photo.data, 200) and is_small_plain_jpeg(none.data, 200) == (kind == "JPEG")


def test_a_profile_of_grey_changes_no_colours():
    assert (decode(file_of(scene(), icc_profile=grey_profile(1.0))) == decode(file_of(scene()))).all()


def test_a_profile_in_several_segments_is_read():
    data = file_of(scene(as_display_p3(SKIN)), icc_profile=rgb_profile(DISPLAY_P3, padding=150_000))
    assert data.count(b"ICC_PROFILE\0") == 3
    assert np.abs(colours_in(decode(data)) - SKIN).max() <= 4


def test_a_jpeg_in_other_colours_is_not_stored_as_it_is():
    image = scene()
    assert not is_small_plain_jpeg(file_of(image, icc_profile=rgb_profile(DISPLAY_P3)), 200)
    assert is_small_plain_jpeg(file_of(image, icc_profile=rgb_profile(SRGB)), 200)


def test_transparency_and_a_profile_go_together():
    image = scene(as_display_p3(SKIN)).convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 32, 32))
    found = colours_in(photo_of(file_of(image, "PNG", icc_profile=rgb_profile(DISPLAY_P3))).image)
    assert found[0].tolist() == [0, 0, 0] and np.abs(found[1:] - SKIN[1:]).max() <= 2


@pytest.mark.parametrize(
    "profile",
    [
        rgb_profile(SRGB), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), ink_profile(),
        rgb_profile(DISPLAY_P3)[:300], b"nonsense", rgb_profile(DISPLAY_P3, padding=1 << 22),
    ],
    ids=["sRGB", "Pillow's sRGB", "of ink", "cut", "nonsense", "enormous"],
)  # fmt: skip
def test_a_profile_of_srgb_and_one_that_is_none_change_no_pixel(profile):
    image = scene()
    assert (decode(file_of(image, icc_profile=profile)) == decode(file_of(image))).all()
    assert is_small_plain_jpeg(file_of(image, icc_profile=profile), 200)


def test_ink_is_read_as_the_profile_says():
    assert transform_of(ink_profile(), "CMYK") is not None
    image = Image.new("CMYK", (64, 32), (255, 0, 0, 0))
    image.paste((0, 0, 0, 255), (32, 0, 64, 32))
    cyan, black = colours_in(photo_of(file_of(image, icc_profile=ink_profile())).image)
    assert np.abs(linear(cyan) - (0.25, 1, 1)).max() < 0.05 and black.max() <= 3
    assert colours_in(photo_of(file_of(image)).image)[0][0] == 0
