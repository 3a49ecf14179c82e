"""JPEGs are decoded upright, in bounded memory and time, or refused with the reason."""

import resource
import time
from io import BytesIO

import numpy as np
import pytest
from PIL import ExifTags, Image

from mivolo_lite.images.jpeg import MAX_SCANS, BrokenJpeg, check, decode, verify

HEIGHT, WIDTH = 40, 60
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.fixture
def scene() -> Image.Image:
    """A smooth image whose four quarters differ, so that JPEG hardly changes it and a turn shows."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return Image.fromarray(np.stack([4 * x, 6 * y, np.full_like(x, 90)], axis=2).astype(np.uint8))


def jpeg_of(image: Image.Image, **options) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", quality=95, **options)
    return file.getvalue()


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "a camera"
    exif[ExifTags.Base.Orientation] = orientation
    return exif.tobytes()


def with_exif(data: bytes, exif: bytes) -> bytes:
    """A JPEG with an APP1 segment behind its first one."""
    first = 4 + int.from_bytes(data[4:6]) - 2 + 2
    return data[:first] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2) + exif + data[first:]


def of_size(width: int, height: int, data: bytes) -> bytes:
    """A JPEG whose header claims another size."""
    frame = next(data.index(bytes((0xFF, marker))) for marker in (0xC0, 0xC2) if bytes((0xFF, marker)) in data)
    return data[: frame + 5] + height.to_bytes(2) + width.to_bytes(2) + data[frame + 9 :]


def with_scans(count: int, image: Image.Image, trailer: bytes = b"") -> bytes:
    """A progressive JPEG that has its last scan ``count`` times more."""
    data = jpeg_of(image, progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + b"\xff\xd9" + trailer


def scans_of(data: bytes) -> int:
    return data.count(b"\xff\xda")


def assert_shows(data: bytes, scene: Image.Image):
    image = decode(data)
    assert image.dtype == np.uint8 and image.shape == (HEIGHT, WIDTH, 3) and image.flags.c_contiguous
    assert np.abs(image.astype(int) - np.asarray(scene)).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("progressive", [False, True])
def test_images_are_turned_upright(scene, orientation, progressive):
    stored = scene.transpose(TURNS[orientation]) if orientation > 1 else scene
    data = jpeg_of(stored, exif=exif_of(orientation), progressive=progressive)
    assert check(data).orientation == orientation
    assert_shows(data, scene)


def test_both_byte_orders_are_read(scene):
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    assert check(with_exif(jpeg_of(scene), exif)).orientation == 6
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x08\0\0\0\0\0\0\0"
    assert check(with_exif(jpeg_of(scene), exif)).orientation == 8


def test_damaged_exif_does_not_lose_a_good_image(scene):
    data, exif = jpeg_of(scene), exif_of(1)
    rng = np.random.default_rng(0)
    damaged = [exif[:size] for size in range(6, len(exif))]
    for _ in range(200):
        bytes_ = bytearray(exif)
        for place in rng.integers(6, len(exif), rng.integers(1, 6)):
            bytes_[place] = rng.integers(256)
        damaged.append(bytes(bytes_))
    for exif in damaged:
        image = decode(with_exif(data, exif))
        assert sorted(image.shape[:2]) == [HEIGHT, WIDTH]
    for orientation in (0, 9, 65535):
        assert_shows(with_exif(data, exif_of(orientation)), scene)


def test_a_second_exif_segment_does_not_count(scene):
    stored = jpeg_of(scene.transpose(TURNS[6]))
    assert_shows(with_exif(with_exif(stored, exif_of(3)), exif_of(6)), scene)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_claim_of_many_pixels_is_refused_before_memory_is_taken(scene, progressive):
    data = of_size(65500, 65500, jpeg_of(scene, progressive=progressive))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BrokenJpeg, match="65500x65500 pixels, more than 64 megapixels"):
        decode(data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**14


def test_the_limit_is_exact(scene):
    data = jpeg_of(scene)
    assert decode(data, WIDTH * HEIGHT / 1e6).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(BrokenJpeg, match="60x40 pixels, more than 0.0023 megapixels"):
        decode(data, 0.0023)


@pytest.mark.parametrize("disguise", ["plain", "fill bytes", "restart marker"])
def test_many_scans_are_refused(scene, disguise):
    data = with_scans(MAX_SCANS, scene)
    between = {"plain": b"", "fill bytes": b"\xff\xff", "restart marker": b"\xff\xd0"}[disguise]
    first = 4 + int.from_bytes(data[4:6]) - 2 + 2
    with pytest.raises(BrokenJpeg, match=f"more than {MAX_SCANS} scans"):
        decode(data[:first] + between + data[first:])


def test_scans_cost_no_time_where_they_are_too_many(scene):
    data = of_size(8000, 8000, with_scans(5000, scene))
    start = time.process_time()
    with pytest.raises(BrokenJpeg, match="scans"):
        decode(data)
    assert time.process_time() - start < 0.5


def test_usual_progressive_images_are_decoded(scene):
    data = jpeg_of(scene, progressive=True)
    assert 2 < scans_of(data) < 20
    assert_shows(data, scene)
    allowed = MAX_SCANS - scans_of(data)
    assert check(with_scans(allowed, scene)).width == WIDTH
    with pytest.raises(BrokenJpeg, match="scans"):
        check(with_scans(allowed + 1, scene))


def test_what_lies_behind_the_image_or_in_its_notes_is_no_scan(scene):
    many = b"\xff\xda\0\x08" * (2 * MAX_SCANS)  # as a video behind an image may hold by chance
    assert_shows(with_scans(0, scene, trailer=many), scene)
    assert_shows(with_exif(jpeg_of(scene, progressive=True), many), scene)


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "empty"),
        (bytes(100), "nothing but zeros"),
        (b"\x89PNG\r\n\x1a\n" + bytes(30), "a PNG"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "a WebP"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC"),
        (b"<!DOCTYPE html><html>404</html>", "an HTML or XML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"just words", "text"),
        (b"\x01\x02\x03\x04", "first bytes: 01 02 03 04"),
    ],
)
def test_what_is_no_jpeg_is_named(data, reason):
    with pytest.raises(BrokenJpeg, match=f"unreadable JPEG: it is .*{reason}"):
        decode(data)


def test_every_cut_gives_a_reason(scene):
    for progressive in (False, True):
        data = jpeg_of(scene, exif=exif_of(6), progressive=progressive)
        for size in range(len(data) - 2):
            with pytest.raises(BrokenJpeg, match="unreadable JPEG"):
                decode(data[:size])


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_what_is_verified_can_be_decoded_and_what_is_not_cannot(scene, options):
    good, rng = jpeg_of(scene, **options), np.random.default_rng(0)
    verify(good)
    verdicts = []
    for _ in range(300):
        damaged = bytearray(good)
        for place in rng.integers(20, len(good), rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        data = bytes(damaged[: rng.integers(20, len(good)) if rng.random() < 0.3 else None])
        verdicts.append((_is_good(verify, data), _is_good(decode, data)))
    assert {verified == decoded for verified, decoded in verdicts} == {True}
    assert {decoded for _, decoded in verdicts} == {True, False}


def _is_good(read, data: bytes) -> bool:
    try:
        read(data)
    except BrokenJpeg:
        return False
    return True
