"""FairFace: age groups become ranges, the photo is the body, the face lies in its middle."""

import csv
import os
from pathlib import Path

import pytest
from PIL import Image

from mivolo_lite.errors import UserError
from mivolo_lite.images.jpeg import decode
from mivolo_lite.packing.sources.fairface import FairFaceSource, face_in_the_middle
from mivolo_lite.shards.rejects import Rejected


@pytest.fixture
def source(tmp_path):
    """Makes a source of the CSV lines given, over the light photos ``a.jpg`` (448 x 448) and ``b.png``."""
    Image.new("RGB", (448, 448), (200, 190, 180)).save(tmp_path / "a.jpg")
    Image.new("RGB", (448, 448), (200, 190, 170)).save(tmp_path / "b.png")

    def make(*lines: str, header: str = "file,age,gender", **options) -> FairFaceSource:
        (tmp_path / "labels.csv").write_text("\n".join([header, *lines]) + "\n")
        return FairFaceSource(tmp_path, tmp_path / "labels.csv", **options)

    return make


def only_sample(source: FairFaceSource):
    (item,) = source.items()
    (sample,) = source.read(item).samples
    return sample


@pytest.mark.parametrize(
    "text, expected",
    [("0-2", (0, 2)), ("30-39", (30, 39)), ("70+", (70, 100)), ("more than 70", (70, 100)), ("25", (25, 25))],
)
def test_age_groups_become_ranges(source, text, expected):
    labels = only_sample(source(f"a.jpg,{text},Female")).labels
    assert labels.age == expected and labels.gender == "F" and labels.group is None


def test_genders_may_have_codes(source):
    assert only_sample(source("a.jpg,30-39,1", gender_codes="0=M,1=F")).labels.gender == "F"


def test_an_absent_body_has_a_reason(source):
    people = source("a.jpg,30-39,Male", margin=0.25)
    assert people.read(people.items()[0]).missing == [("body", "hidden by the own face")]


@pytest.mark.parametrize("side, face", [(224, 194), (448, 166)])
def test_the_margin_follows_from_the_published_sizes(source, tmp_path, side, face):
    Image.new("RGB", (side, side), (200, 190, 180)).save(tmp_path / "a.jpg")
    assert decode(only_sample(source("a.jpg,30-39,Male")).face).shape == (face, face, 3)


def test_a_face_that_is_cut_already_is_not_cut_again(source, tmp_path):
    Image.new("RGB", (200, 200), (200, 190, 180)).save(tmp_path / "a.jpg")
    faces = source("a.jpg,30-39,Male")
    with pytest.raises(Rejected, match="200x200 pixels: FairFace's photos have 448x448 or 224x224; give --margin"):
        faces.read(faces.items()[0])
    assert decode(only_sample(source("a.jpg,30-39,Male", margin=0)).face).shape == (200, 200, 3)
    assert faces.preface[-1] == "faces are cut from the middle of the photos (448 px: 37%, 224 px: 87% of the side)"


def test_race_is_the_group(source):
    header = "file,age,gender,race,service_test"
    labels = only_sample(source("a.jpg,3-9,Male,East Asian,True", header=header)).labels
    assert labels.gender == "M" and labels.group == "East Asian"


def test_the_face_is_cut_from_the_middle_and_blanked_in_the_body(source):
    sample = only_sample(source("a.jpg,30-39,Male"))
    x0, y0, x1, y1 = face_in_the_middle(448, 448, 1.25)
    assert (x0, y0, x1, y1) == (141, 141, 307, 307)
    assert decode(sample.face).shape == (166, 166, 3)
    body = decode(sample.body)
    assert body.shape == (448, 448, 3)
    assert (body[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2] < 20).all() and (body[:130] > 150).all()


def test_a_tight_margin_leaves_no_body(source):
    sample = only_sample(source("a.jpg,30-39,Male", margin=0.25))
    assert decode(sample.face).shape == (388, 388, 3) and sample.body is None


def test_the_csvs_face_box_comes_first(source):
    header = "file,age,gender,face_x0,face_y0,face_x1,face_y1"
    assert decode(only_sample(source("a.jpg,30-39,Male,10,20,60,90", header=header)).face).shape == (70, 50, 3)
    assert decode(only_sample(source("a.jpg,30-39,Male,-1,-1,-1,-1", header=header)).face).shape == (166, 166, 3)


def test_without_the_face_the_photo_is_stored_byte_for_byte(source, tmp_path):
    sample = only_sample(source("a.jpg,30-39,Male", face=False))
    assert sample.face is None and sample.body == (tmp_path / "a.jpg").read_bytes()
    assert decode(only_sample(source("a.jpg,30-39,Male", face=False, crop_size=100)).body).shape == (100, 100, 3)
    assert decode(only_sample(source("b.png,30-39,Male", face=False)).body).shape == (448, 448, 3)


@pytest.mark.parametrize(
    "line, reason",
    [
        ("a.jpg,young,Male", "age 'young'"),
        ("a.jpg,30-39,X", "gender 'X'"),
        ("gone.jpg,30-39,Male", "No such file"),
    ],
)
def test_a_bad_line_is_rejected_with_its_reason(source, line, reason):
    photos = source(line)
    with pytest.raises(Rejected, match=reason):
        photos.read(photos.items()[0])


def test_a_bad_csv_is_one_clear_line(source, tmp_path):
    for make, message in (
        (lambda: source("a.jpg,30-39", header="file,age"), "column gender is missing"),
        (lambda: source(), "holds no photos"),
        (lambda: source("a.jpg,,-1"), "nobody in it has an age or a gender"),
        (lambda: source("a.jpg,30-39,Male", "a.jpg,3-9,Male"), "line 3: a.jpg is there twice"),
        (lambda: source("a.jpg,30-39,Male", margin=-1), "--margin -1"),
        (lambda: source("a.jpg,30-39,Male", margin=float("nan")), "--margin nan"),
        (lambda: source("a.jpg,30-39,Male", max_megapixels=float("nan")), "--max_megapixels nan"),
        (lambda: source("a.jpg,30-39,Male", max_megapixels=0), "--max_megapixels 0"),
        (lambda: FairFaceSource(tmp_path / "gone", tmp_path / "labels.csv"), "no such folder"),
        (lambda: source("a.jpg,30-39,0", "b.png,30-39,1"), "column gender holds numbers"),
        (lambda: source("a.jpg,30-39,Male", "b.png,30-39"), "line 3: 2 cells"),
    ):
        with pytest.raises(UserError, match=message):
            make()


@pytest.mark.skipif("FAIRFACE_DIR" not in os.environ, reason="needs FAIRFACE_DIR (FairFace photos and labels.csv)")
def test_real_photos_give_crops_and_the_csvs_labels():
    folder = Path(os.environ["FAIRFACE_DIR"])
    photos = FairFaceSource(folder, folder / "labels.csv")
    with open(folder / "labels.csv", newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert [item.partition("#")[0] for item in photos.items()] == sorted(rows)
    bodies = 0
    items = [item.partition("#")[0] for item in photos.items()[::10]]
    for full_item in photos.items()[::10]:
        item = full_item.partition("#")[0]
        (sample,) = photos.read(full_item).samples
        assert sample.labels.gender == rows[item]["gender"][0]
        assert str(int(sample.labels.age[0])) == rows[item]["age"].split("-")[0].rstrip("+")
        assert decode(sample.face).shape == (166, 166, 3)
        bodies += sample.body is not None
    assert bodies >= 0.9 * len(items), "only very dark photos have too little left for a body"
