"""Photos of every kind become upright 8-bit RGB, or a reason."""

import re
import struct
import subprocess
import sys
import time
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import ExifTags, Image

from mivolo_lite.images.hdr import hdr_transfer
from mivolo_lite.packing.decode import UnusablePhoto, is_small_plain_jpeg, read_photo
from tests.images.test_jpeg import TURNS

HEIGHT, WIDTH = 40, 60


@pytest.fixture
def scene() -> Image.Image:
    """A smooth photo whose four quarters differ, so that JPEG hardly changes it and a turn shows."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return Image.fromarray(np.stack([4 * x, 6 * y, np.full_like(x, 90)], axis=2).astype(np.uint8))


def assert_close(image: np.ndarray, expected, tolerance: float = 3):
    expected = np.asarray(expected)
    assert image.dtype == np.uint8 and image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).mean() <= tolerance


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff", "bmp"])
def test_usual_formats(tmp_path, scene, suffix):
    path = tmp_path / f"photo.{suffix}"
    scene.save(path, quality=95)
    photo = read_photo(path)
    assert_close(photo.image, scene)
    assert photo.data == path.read_bytes()
    assert is_small_plain_jpeg(photo.data, 1000) == (suffix == "jpg")


def test_heic_where_pillow_heif_is_installed(tmp_path, scene):
    pytest.importorskip("pillow_heif").register_heif_opener()
    scene.save(tmp_path / "a.heic", quality=95)
    photo = read_photo(tmp_path / "a.heic")
    assert_close(photo.image, scene, tolerance=4)
    assert not is_small_plain_jpeg(photo.data, 1000)
    (tmp_path / "b.heic").write_bytes(photo.data[: len(photo.data) // 2])
    with pytest.raises(UnusablePhoto, match="unreadable image"):
        read_photo(tmp_path / "b.heic")


def test_exif_orientation_alone_turns_no_heic(tmp_path, scene):
    """A HEIC is turned by its box alone; the format says that EXIF's orientation means nothing in it."""
    pytest.importorskip("pillow_heif").register_heif_opener()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 1
    scene.save(tmp_path / "a.heic", exif=exif, quality=95)
    data = (tmp_path / "a.heic").read_bytes()
    assert data.count(tag := struct.pack(">HHIH", ExifTags.Base.Orientation, 3, 1, 1)) == 1
    (tmp_path / "a.heic").write_bytes(data.replace(tag, tag[:-1] + b"\6"))
    assert_close(read_photo(tmp_path / "a.heic").image, scene, tolerance=4)


def test_heic_without_pillow_heif_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "OPEN", {name: way for name, way in Image.OPEN.items() if name != "HEIF"})
    monkeypatch.setattr("mivolo_lite.packing.decode._load_plugins", lambda: None)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(30))
    with pytest.raises(UnusablePhoto, match='it is a HEIC, which needs: pip install "mivolo-lite.heic."'):
        read_photo(tmp_path / "a.heic")


def test_avif_where_pillow_has_it(tmp_path, scene):
    Image.init()
    if "AVIF" not in Image.SAVE:
        pytest.skip("this Pillow was built without AVIF")
    scene.save(tmp_path / "a.avif", quality=95)
    assert_close(read_photo(tmp_path / "a.avif").image, scene, tolerance=4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff", "avif", "heic"])
def test_exif_orientation_is_undone(tmp_path, scene, suffix, orientation):
    """Once: AVIF and HEIC also hold it in boxes of their own, which pillow-heif obeys before it gives the image."""
    if suffix == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    Image.init()
    if suffix == "avif" and "AVIF" not in Image.SAVE:
        pytest.skip("this Pillow was built without AVIF")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = scene.transpose(TURNS[orientation]) if orientation > 1 else scene
    # As bytes: of an Image.Exif, pillow-heif writes no box that turns the image.
    stored.save(tmp_path / f"turned.{suffix}", exif=exif.tobytes(), quality=95)
    photo = read_photo(tmp_path / f"turned.{suffix}")
    assert_close(photo.image, scene, tolerance=4)
    assert is_small_plain_jpeg(photo.data, 1000) == (orientation == 1 and suffix == "jpg")


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
def test_damaged_exif_does_not_lose_a_good_image(tmp_path, scene, suffix):
    path, exif = tmp_path / f"noted.{suffix}", Image.Exif()
    exif[ExifTags.Base.Orientation] = 1
    exif[ExifTags.Base.Make] = "a camera"
    for damaged in (exif.tobytes()[:20], b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0nonsense", b"x"):
        scene.save(path, exif=damaged if suffix != "tiff" else exif, quality=95, lossless=True)
        if suffix == "tiff":
            data = path.read_bytes()
            tag = data.index(b"\x12\x01\x03\0\x01\0\0\0")
            path.write_bytes(data[: tag + 8] + damaged[:2].ljust(2, b"\0") + data[tag + 10 :])
        assert_close(read_photo(path).image, scene)


@pytest.mark.parametrize("mode, suffix", [("L", "jpg"), ("L", "png"), ("1", "png"), ("P", "png"), ("CMYK", "jpg")])
def test_other_colour_modes(tmp_path, scene, mode, suffix):
    stored = scene.convert(mode)
    stored.save(tmp_path / f"photo.{suffix}")
    assert_close(read_photo(tmp_path / f"photo.{suffix}").image, stored.convert("RGB"), tolerance=4)


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    levels = np.array([[0, 128, 257, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    assert read_photo(tmp_path / "deep.png").image[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def tiff(levels: np.ndarray, **tags: int) -> bytes:
    """A grey TIFF of 16 bits, some of whose tags then say otherwise."""
    file = BytesIO()
    Image.fromarray(levels).save(file, "TIFF")
    data = bytearray(file.getvalue())
    (offset,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, offset)
    entries = {
        struct.unpack_from("<H", data, place)[0]: place + 8 for place in range(offset + 2, offset + 12 * count, 12)
    }
    for name, value in tags.items():
        struct.pack_into("<H", data, entries[getattr(ExifTags.Base, name)], value)
    return bytes(data)


TWELVE_BITS = np.frombuffer(b"\x00\x00\x08\x80\x0f\xff", "<u2").reshape(1, 3)  # 0, 8, 2048, 4095
SIXTEEN_BITS = np.array([[0, 257, 65535]], np.uint16)


@pytest.mark.parametrize(
    "levels, tags, grey",
    [
        (SIXTEEN_BITS, {}, [0, 1, 255]),
        (SIXTEEN_BITS, {"PhotometricInterpretation": 0}, [255, 254, 0]),  # 0 is white
        (TWELVE_BITS, {"ImageWidth": 4, "BitsPerSample": 12}, [0, 0, 128, 255]),
    ],
)
def test_grey_tiffs_are_as_bright_as_their_tags_say(levels, tags, grey, tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(levels, **tags))
    assert read_photo(tmp_path / "a.tif").image[0, :, 0].tolist() == grey


def test_a_tiff_of_pixels_that_are_not_read_is_not_called_damaged_alone(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(SIXTEEN_BITS, BitsPerSample=24))
    with pytest.raises(UnusablePhoto, match="it is a TIFF, damaged or of pixels that are not read; save it as a PNG"):
        read_photo(tmp_path / "a.tif")


def test_sixteen_bits_of_colour(tmp_path):
    row = b"\0" + struct.pack(">6H", 0, 32768, 65535, 65535, 257, 0)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(row)), (b"IEND", b"")]
    (tmp_path / "deep.png").write_bytes(png(chunks))
    assert read_photo(tmp_path / "deep.png").image.tolist() == [[[0, 128, 255], [255, 1, 0]]]


@pytest.mark.parametrize("code, name", [(16, "PQ"), (18, "HLG"), (13, None)])
@pytest.mark.parametrize("kind", ["PNG", "AVIF", "HEIF"])
def test_hdr_is_rejected_by_its_name(tmp_path, scene, kind, code, name):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow does not write {kind}")
    scene.save(tmp_path / "photo", kind)
    data = (tmp_path / "photo").read_bytes()
    if kind == "PNG":
        chunk = b"cICP" + bytes([9, code, 0, 1])
        data = data[:33] + struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    data = re.sub(rb"colrnclx....", b"colrnclx" + struct.pack(">HH", 9, code), data, flags=re.DOTALL)
    (tmp_path / "photo").write_bytes(data)
    if name is None:
        assert read_photo(tmp_path / "photo").image.shape[:2] == scene.size[::-1]
        return
    with pytest.raises(UnusablePhoto, match=rf"HDR \({name}\), whose levels are not those of sRGB; save it as SDR"):
        read_photo(tmp_path / "photo")
    assert hdr_transfer(b"tmap" + data) is None  # an SDR image, and a map that makes HDR of it


def test_transparency_lies_on_black(tmp_path):
    Image.fromarray(np.array([[[200, 100, 50, 255], [200, 100, 50, 0]]], dtype=np.uint8)).save(tmp_path / "a.png")
    assert read_photo(tmp_path / "a.png").image.tolist() == [[[200, 100, 50], [0, 0, 0]]]
    grey = Image.fromarray(np.array([[7, 9]], dtype=np.uint8))
    grey.save(tmp_path / "b.png", transparency=9)
    assert read_photo(tmp_path / "b.png").image.tolist() == [[[7, 7, 7], [0, 0, 0]]]
    Image.fromarray(np.array([[257, 65535]], dtype=np.uint16)).save(tmp_path / "c.png", transparency=65535)
    assert read_photo(tmp_path / "c.png").image.tolist() == [[[1, 1, 1], [0, 0, 0]]]


def test_of_an_animation_the_first_frame_counts(tmp_path):
    first, second = Image.new("RGB", (6, 5), "red"), Image.new("RGB", (6, 5), "white")
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert_close(read_photo(tmp_path / "a.gif").image, first, tolerance=0)


def test_enormous_photos_are_rejected_by_their_header(tmp_path):
    # 30,000 x 30,000 pixels in a few hundred bytes, whose pixels are not even there
    header = (b"IHDR", struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0))
    (tmp_path / "bomb.png").write_bytes(png([header, (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]))
    start = time.process_time()
    with pytest.raises(UnusablePhoto, match="pixels"):
        read_photo(tmp_path / "bomb.png")
    assert time.process_time() - start < 0.5


def test_the_size_limit_is_exact(tmp_path, scene):
    scene.save(tmp_path / "photo.png")
    limit = WIDTH * HEIGHT / 1e6
    assert read_photo(tmp_path / "photo.png", limit).image.shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(UnusablePhoto, match="60x40 pixels, more than 0.0023 megapixels"):
        read_photo(tmp_path / "photo.png", 0.0023)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_truncated_files_are_rejected(tmp_path, scene, suffix):
    scene.save(tmp_path / f"a.{suffix}")
    data = (tmp_path / f"a.{suffix}").read_bytes()
    for size in (0, 1, 20, len(data) // 2):
        (tmp_path / "cut").write_bytes(data[:size])
        with pytest.raises(UnusablePhoto, match="unreadable"):
            read_photo(tmp_path / "cut")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff", "gif", "bmp"])
def test_damaged_files_give_a_photo_or_a_reason(tmp_path, scene, suffix):
    scene.save(tmp_path / f"a.{suffix}")
    data = (tmp_path / f"a.{suffix}").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(data)
        for place in rng.integers(0, min(len(data), 200), rng.integers(1, 8)):
            damaged[place] = rng.integers(256)
        (tmp_path / "damaged").write_bytes(damaged)
        try:
            assert read_photo(tmp_path / "damaged").image.shape[2] == 3
        except UnusablePhoto as reason:
            assert str(reason) and "\n" not in str(reason) and " at 0x" not in str(reason)


def test_what_is_no_photo_is_rejected(tmp_path):
    (tmp_path / "text.jpg").write_text("not a photo")
    for name, reason in (("text.jpg", "unreadable"), ("missing.jpg", "No such file"), (".", "is a folder")):
        with pytest.raises(UnusablePhoto, match=reason):
            read_photo(tmp_path / name)


def test_unknown_white_is_rejected(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(UnusablePhoto, match="32 bits"):
        read_photo(tmp_path / "a.tiff")


@pytest.mark.slow
@pytest.mark.parametrize("mode, suffix", [("RGB", "jpg"), ("CMYK", "jpg"), ("RGBA", "png")])
def test_memory_is_bounded_by_the_number_of_pixels(tmp_path, scene, mode, suffix):
    path = tmp_path / f"large.{suffix}"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    scene.resize((6000, 6000)).convert(mode).save(path, exif=exif)
    script = """
import sys
from pathlib import Path
from mivolo_lite.packing.decode import read_photo

def peak():  # getrusage would give that of the process that started this one
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

before = peak()
read_photo(Path(sys.argv[1]))
print(peak() - before)
"""
    kilobytes = int(subprocess.run([sys.executable, "-c", script, path], capture_output=True, check=True).stdout)
    assert 3 * 6000 * 6000 < kilobytes * 1024 < 12 * 6000 * 6000


def png(chunks) -> bytes:
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
