"""Every file that looks like an image is found once, also behind links."""

import os

import pytest
from PIL import Image

from mivolo_lite.packing.pack import pack
from mivolo_lite.packing.sources.files import image_files
from mivolo_lite.packing.sources.identities import IdentitySource
from mivolo_lite.packing.sources.utkface import UTKFaceSource
from tests.shards.tiny_shards import noise_jpeg


def test_links_to_folders_are_followed(tmp_path):
    for number in range(4):
        (tmp_path / "store" / f"person{number}").mkdir(parents=True)
        for image in range(2):
            (tmp_path / "store" / f"person{number}" / f"{image}.jpg").write_bytes(noise_jpeg(2 * number + image))
    (tmp_path / "mix").mkdir()
    (tmp_path / "store" / "person0").rename(tmp_path / "mix" / "person0")
    for number in range(1, 4):
        (tmp_path / "mix" / f"person{number}").symlink_to(tmp_path / "store" / f"person{number}")
    (tmp_path / "all").symlink_to(tmp_path / "mix")
    expected = [f"person{number}/{image}.jpg" for number in range(4) for image in range(2)]
    assert image_files(tmp_path / "mix") == expected == image_files(tmp_path / "all")
    packed = pack(IdentitySource(tmp_path / "mix"), tmp_path / "out", {"train": 1.0})
    assert packed.splits["train"].info["labels"]["identity"] == {"known": 8, "people": 4}


def test_loops_of_links_end_and_nothing_comes_twice(tmp_path):
    for name in ("a/deep", "b"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a" / "1.jpg").write_bytes(noise_jpeg(1))
    (tmp_path / "a" / "deep" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "deep" / "2.jpg").symlink_to("../1.jpg")
    (tmp_path / "b" / "across").symlink_to(tmp_path / "a")
    (tmp_path / "b" / "self").symlink_to(".")
    (tmp_path / "0-alias").symlink_to(tmp_path / "a")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert image_files(tmp_path) == ["a/1.jpg", "a/deep/2.jpg"], "a folder keeps its own name"


def test_images_are_told_by_ending_or_first_bytes(tmp_path):
    images = ["1.jpg", "2.JPEG", "3.jfif", "4.HEIC", "5.avif", "6.gif", "deep/7.Tiff"]
    (tmp_path / "deep").mkdir()
    for name in [*images, "._1.jpg", "deep/._7.Tiff", "notes.txt", "labels.csv", ".DS_Store", "deep/Thumbs.db"]:
        (tmp_path / name).write_bytes(b"notes")
    (tmp_path / "no-ending").write_bytes(noise_jpeg(1))
    (tmp_path / "0a1b.bin").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    os.mkfifo(tmp_path / "pipe")
    assert image_files(tmp_path) == sorted([*images, "no-ending", "0a1b.bin"])


@pytest.mark.parametrize("ending", ["jpg", "JPG", "jpeg", "JPEG", "png", "webp", "jpg.chip.jpg"])
def test_every_ending_is_packed(tmp_path, ending):
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (20, 30), "teal").save(folder / "image.png")
    (folder / "image.png").rename(folder / f"20_1_0_1.{ending}")
    packed = pack(UTKFaceSource(folder), tmp_path / "out", {"train": 1.0})
    assert packed.splits["train"].key(0) == "20_1_0_1" and not packed.rejected


def test_what_cannot_be_packed_is_listed(tmp_path):
    folder = tmp_path / "images"
    (folder / "someone").mkdir(parents=True)
    (folder / "loose.jpg").write_bytes(noise_jpeg(0))
    (folder / "someone" / "1.jpg").write_bytes(noise_jpeg(1))
    (folder / "someone" / "2.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(30))
    (folder / "someone" / "notes.txt").write_bytes(b"notes")
    packed = pack(IdentitySource(folder), tmp_path / "out", {"train": 1.0}, max_reject_rate=1)
    reasons = {reject["image"]: reject["reason"] for reject in packed.rejected}
    assert reasons.keys() == {"loose.jpg", "someone/2.heic"}
    assert reasons["loose.jpg"] == "lies in no person's folder"
    assert reasons["someone/2.heic"].startswith("unreadable image: it is a HEIC")
