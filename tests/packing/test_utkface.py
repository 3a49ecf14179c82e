"""UTKFace: what its file names say, and its real images where they are at hand."""

import os
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from mivolo_lite.packing.pack import pack
from mivolo_lite.packing.sources.utkface import UTKFaceSource
from mivolo_lite.shards.rejects import Rejected
from tests.shards.tiny_shards import noise_jpeg


@pytest.fixture
def read(tmp_path):
    """``read(name, data)``: what the source makes of one file."""

    def read(name, data=None):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noise_jpeg(1) if data is None else data)
        return UTKFaceSource(tmp_path).read(name)

    return read


@pytest.mark.parametrize(
    "name, age, gender, group, key",
    [
        ("26_0_0_20170105165200145.jpg.chip.jpg", 26, "M", "White", "26_0_0_20170105165200145"),
        ("1_1_4_20161219140627985.jpg", 1, "F", "Others", "1_1_4_20161219140627985"),
        ("part 1/116_1_2_20170112213001988.JPG", 116, "F", "Asian", "part_1_116_1_2_20170112213001988"),
        ("0_0_3_0.jpg", 0, "M", "Indian", "0_0_3_0"),
        ("120_1_1_1.jpg", 120, "F", "Black", "120_1_1_1"),
    ],
)
def test_a_file_name_says_everything(read, name, age, gender, group, key):
    (sample,) = read(name).samples
    assert (sample.labels.age, sample.labels.gender, sample.labels.group) == ((age, age), gender, group)
    assert sample.labels.extra == {"source": name}
    assert sample.key == key and sample.face == noise_jpeg(1) and sample.body is None


@pytest.mark.parametrize(
    "name",
    ["61_1_20170109142408075.jpg.chip.jpg", "39__0_20170116.jpg", "20_2_0_1.jpg", "20_1_5_1.jpg", "x_1_0_1.jpg",
     "-1_1_0_1.jpg", "20_1_0_1.jpg.chip.jpg.jpg", "._20_1_0_1.jpg"],
)  # fmt: skip
def test_another_file_name_is_refused(read, name):
    with pytest.raises(Rejected, match="file name is not"):
        read(name)


def test_ages_beyond_the_vocabulary_are_refused(read):
    with pytest.raises(Rejected, match="age 121 does not lie in 0 to 120"):
        read("121_1_0_1.jpg")


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_a_turned_or_converted_image_is_stored_upright(read, ending):
    scene = Image.fromarray(np.repeat(np.arange(96, dtype=np.uint8)[:, None], 64, axis=1))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    file = BytesIO()
    scene.transpose(Image.Transpose.ROTATE_90).save(file, {"jpg": "JPEG", "png": "PNG"}[ending], exif=exif)
    (sample,) = read("20_1_0_1.jpg", file.getvalue()).samples
    stored = Image.open(BytesIO(sample.face))
    assert stored.format == "JPEG" and stored.size == (64, 96) and not stored.getexif()
    assert np.abs(np.asarray(stored.convert("L")).astype(int) - np.asarray(scene)).mean() < 2


def test_what_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "20_1_0_1.jpg").symlink_to(tmp_path / "nowhere")
    source = UTKFaceSource(tmp_path)
    (item,) = source.items()
    with pytest.raises(Rejected, match="cannot be read: No such file"):
        source.read(item)


@pytest.mark.slow
@pytest.mark.skipif("UTKFACE_DIR" not in os.environ, reason="UTKFACE_DIR names no real images")
def test_the_real_images_pack(tmp_path):
    images = Path(os.environ["UTKFACE_DIR"])
    packed = pack(UTKFaceSource(images), tmp_path / "out", {"train": 0.9, "val": 0.1}, workers=os.cpu_count())
    train, val = packed.splits["train"], packed.splits["val"]
    count = len(list(images.rglob("*.jpg")))
    assert len(train) + len(val) + len(packed.rejected) == count
    assert len(packed.rejected) < 0.001 * count
    assert len(val) / count == pytest.approx(0.1, abs=0.02)
    assert val.info["labels"]["age"]["mean"] == pytest.approx(train.info["labels"]["age"]["mean"], abs=3)
