"""People cut out of photos by MiVOLO's CSV, and its own reader's crops as the oracle."""

import json
import os
import pickle
import re
import tarfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mivolo_lite.cli import main
from mivolo_lite.errors import UserError
from mivolo_lite.images.jpeg import decode
from mivolo_lite.images.letterbox import letterbox
from mivolo_lite.packing.crops import body_around
from mivolo_lite.packing.pack import pack
from mivolo_lite.packing.sources.annotations import AnnotationSource
from mivolo_lite.shards.rejects import Rejected

HEADER = "img_name,age,gender,face_x0,face_y0,face_x1,face_y1,person_x0,person_y0,person_x1,person_y1"
GREY = 180


@pytest.fixture
def source(tmp_path):
    """Makes a source of the CSV lines given, over the grey photos ``a.jpg`` and ``sub/b.png`` of 400 x 300."""
    (tmp_path / "sub").mkdir()
    Image.new("RGB", (400, 300), (GREY,) * 3).save(tmp_path / "a.jpg")
    Image.new("RGB", (400, 300), (GREY + 1,) * 3).save(tmp_path / "sub/b.png")

    def make(*lines: str, header: str = HEADER, **options) -> AnnotationSource:
        (tmp_path / "labels.csv").write_text("\n".join([header, *lines]) + "\n")
        return AnnotationSource(tmp_path, tmp_path / "labels.csv", **options)

    return make


def only_sample(source: AnnotationSource):
    (item,) = source.items()
    (sample,) = source.read(item).samples
    return sample


def test_labels_and_crops_of_a_line(source):
    sample = only_sample(source("a.jpg,25;32,F,20,30,80,100,10,20,200,290"))
    assert sample.labels.age == (25, 32) and sample.labels.gender == "F"
    assert sample.labels.extra == {"source": "a.jpg"}
    assert decode(sample.face).shape == (70, 60, 3)
    body = decode(sample.body)
    assert body.shape == (270, 190, 3)
    assert (body[12:78, 12:68] < 20).all(), "the own face is blanked"
    assert (body[90:] > GREY - 10).all()


def test_other_columns_are_labels_of_tasks(source):
    line = "a.jpg,30,F,20,30,80,100,10,20,200,290"
    sample = only_sample(source(f"{line},happy,1,-1,,0.5,x", header=f"{HEADER},expression,smiling,bald,hat,pitch,a b"))
    assert sample.labels.extra == {"source": "a.jpg", "expression": "happy", "smiling": 1, "pitch": 0.5}


def test_names_of_people_stay_words_and_nan_says_nothing(source):
    line = "a.jpg,30,F,20,30,80,100,10,20,200,290"
    sample = only_sample(source(f"{line},007,nan,inf,1e3", header=f"{HEADER},identity,bmi,height,mass"))
    assert sample.labels.extra == {"source": "a.jpg", "identity": "007", "mass": 1000}


@pytest.mark.parametrize(
    "age, gender, expected",
    [
        ("30", "M", ((30, 30), "M")),
        ("30.5", "F", ((30.5, 30.5), "F")),
        ("-1", "male", (None, "M")),
        ("", "FEMALE", (None, "F")),
        ("60;70", "-1", ((60, 70), None)),
        ('"(25, 32)"', "f", ((25, 32), "F")),
        ('"[25, 32]"', "m", ((25, 32), "M")),
        ("25-32", "u", ((25, 32), None)),
        ("25 - 32.5", "unknown", ((25, 32.5), None)),
        ("70+", "Man", ((70, 100), "M")),
        ("None", "woman", (None, "F")),
        (" 4 ", "", ((4, 4), None)),
    ],
)
def test_ways_to_write_labels(source, age, gender, expected):
    labels = only_sample(source(f"a.jpg,{age},{gender},20,30,80,100,-1,-1,-1,-1")).labels
    assert (labels.age, labels.gender) == expected


def test_absent_boxes_give_absent_crops(source):
    face_only = only_sample(source("a.jpg,30,M,20,30,80,100,-1,-1,-1,-1"))
    body_only = only_sample(source("a.jpg,30,M,-1,-1,-1,-1,10,20,200,290"))
    assert face_only.face and face_only.body is None
    assert body_only.body and body_only.face is None


def test_the_body_columns_may_be_left_out(source):
    header = ",".join(HEADER.split(",")[:7])
    assert only_sample(source("a.jpg,30,M,20,30,80,100", header=header)).body is None


def test_unlabelled_people_are_no_samples_but_are_blanked(source):
    people = source("a.jpg,30,M,-1,-1,-1,-1,10,20,200,290", "a.jpg,-1,-1,150,200,190,240,-1,-1,-1,-1")
    body = decode(only_sample(people).body)
    assert (body[182:218, 142:178] < 20).all()


def test_a_body_box_is_guessed_only_if_asked(source):
    line = "a.jpg,30,M,150,60,210,120,-1,-1,-1,-1"
    assert only_sample(source(line)).body is None
    body = decode(only_sample(source(line, body_from_face=True)).body)
    assert body_around((150, 60, 210, 120)) == (90, 30, 270, 360)
    assert body.shape == (270, 180, 3), "clipped to the photo"
    assert (body[32:88, 62:118] < 20).all()


def test_crop_size_is_the_largest_side(source):
    sample = only_sample(source("a.jpg,30,M,20,30,80,100,10,20,200,290", crop_size=64))
    assert decode(sample.face).shape == (64, 55, 3) and decode(sample.body).shape == (64, 45, 3)


def test_people_of_a_photo_share_its_identity_and_order_follows_names(source):
    people = source(
        "sub/b.png,30,M,20,30,80,100,,,,", "a.jpg,31,F,20,30,80,100,,,,", "sub/b.png,40,F,120,30,180,100,,,,"
    )
    items = people.items()
    assert items == ["a.jpg#3", "sub/b.png#2", "sub/b.png#4"]
    photos = [people.read(item) for item in items]
    assert photos[1].identity == photos[2].identity != photos[0].identity
    assert [photo.samples[0].labels.age[0] for photo in photos] == [31, 30, 40]
    assert photos[1].samples[0].key == "sub_b"


def test_reading_depends_on_the_item_alone(source):
    people = source("a.jpg,31,F,20,30,80,100,,,,", "sub/b.png,30,M,20,30,80,100,,,,", "a.jpg,40,F,120,30,180,100,,,,")
    once = {item: people.read(item) for item in people.items()}
    again = pickle.loads(pickle.dumps(people))
    assert all(again.read(item) == once[item] for item in reversed(people.items()))


@pytest.mark.parametrize(
    "line, reason",
    [
        ("a.jpg,400,M,20,30,80,100,10,20,200,290", "age '400'"),
        ("a.jpg,40;30,M,20,30,80,100,10,20,200,290", "age"),
        ("a.jpg,old,M,20,30,80,100,10,20,200,290", "age 'old'"),
        ("a.jpg,30,X,20,30,80,100,10,20,200,290", "gender 'X'"),
        ("a.jpg,30,M,20,30,left,100,10,20,200,290", "is not a box"),
        ("a.jpg,30,M,20,30,nan,100,10,20,200,290", "is not a box"),
        ("a.jpg,30,M,20,30,,100,10,20,200,290", "is not a box"),
        ("a.jpg,30,M,80,100,20,30,-1,-1,-1,-1", "no usable crop"),
        ("a.jpg,30,M,900,900,990,990,10,20,60,290", "no usable crop"),
        ("a.jpg,30,M,-1,-1,-1,-1,-1,-1,-1,-1", "no usable crop"),
        ("gone.jpg,30,M,20,30,80,100,10,20,200,290", "No such file"),
    ],
)
def test_a_bad_line_is_rejected_with_its_reason(source, line, reason):
    people = source(line, "sub/b.png,33,F,20,30,80,100,10,20,200,290")
    bad, good = people.items()
    with pytest.raises(Rejected, match=reason):
        people.read(bad)
    assert people.read(good).samples[0].body


SAME = "10,20,200,290"
FACE = "20,30,80,100"


def samples_of(source: AnnotationSource):
    return [sample for item in source.items() for sample in source.read(item).samples]


@pytest.mark.parametrize(
    "rows, notes",
    [
        ([f"30,M,{FACE},{SAME}"] * 3, ["2 rows of people who have another row"]),
        ([f"30,M,{FACE},{SAME}", "30,M,23,33,83,103,13,23,203,293"], ["1 rows of people who have another row"]),
        ([f"30,M,{FACE},{SAME}", f"-1,-1,-1,-1,-1,-1,{SAME}"], ["1 rows of people who have another row"]),
        ([f"-1,-1,-1,-1,-1,-1,{SAME}", f"30,M,{FACE},{SAME}"], ["1 rows of people who have another row"]),
        ([f"30,M,{FACE},-1,-1,-1,-1", f"-1,,{FACE},{SAME}"], ["1 rows of people who have another row"]),
        (
            [f"30,M,{FACE},{SAME}", f"31,M,{FACE},{SAME}"],
            ["1 rows of people who", "1 people whose rows differ in age: .*as in a.jpg, lines 2 and 3"],
        ),
        (
            [f"30,M,{FACE},{SAME}", f"31,F,{FACE},{SAME}"],
            ["1 rows of people who", "1 people whose rows differ in age", "1 people whose rows differ in gender"],
        ),
    ],
)
def test_rows_with_nearly_the_same_box_are_one_person(source, rows, notes):
    people = source(*(f"a.jpg,{row}" for row in rows))
    (sample,) = samples_of(people)
    assert sample.labels.age == (30, 30) and sample.labels.gender == "M"
    body = decode(sample.body)
    assert body.shape == (270, 190, 3) and (body[90:] > GREY - 10).all(), "only the own face is blanked"
    for note, expected in zip(people.notes, notes, strict=True):
        assert re.match(expected, note)


@pytest.mark.parametrize(
    "other",
    ["120,130,180,200,10,20,200,290", "-1,-1,-1,-1,100,20,290,290", "120,30,180,100,-1,-1,-1,-1"],
)
def test_other_boxes_are_other_people(source, other):
    people = source(f"a.jpg,30,M,{FACE},{SAME}", f"a.jpg,40,F,{other}")
    assert len(samples_of(people)) == 2 and not people.notes


def test_people_without_labels_are_counted(source):
    people = source(f"a.jpg,30,M,{FACE},{SAME}", "a.jpg,-1,,220,30,280,100,,,,", "sub/b.png,-1,-1,20,30,80,100,,,,")
    assert len(samples_of(people)) == 1
    assert [note.partition(":")[0] for note in people.notes] == ["2 people without age and gender"]


def test_a_body_that_others_hide_is_counted_with_its_reason(source, tmp_path, capsys):
    source(f"a.jpg,30,M,{FACE},{SAME}", "a.jpg,40,F,220,130,280,200,30,20,260,290", f"sub/b.png,3,F,{FACE},{SAME}")
    main(f"pack annotations --images {tmp_path} --csv {tmp_path}/labels.csv --out {tmp_path}/out --split a=1".split())
    summary = capsys.readouterr().out
    assert "a: 3 samples in 1 shard, ages 3 to 40, 1 M, 2 F, 3 faces, 1 body" in summary
    assert "2 of 3 bodies hidden by boxes of others" in summary
    only_bodies = source(f"a.jpg,30,M,-1,-1,-1,-1,{SAME}", "a.jpg,40,F,220,130,280,200,30,20,260,290")
    with pytest.raises(Rejected, match=r"body \(10, 20, 200, 290\) is hidden by boxes of others \(400x300 pixels\)"):
        only_bodies.read("a.jpg#2")


def test_small_boxes_of_others_are_blanked_only_if_asked(source):
    lines = f"a.jpg,30,M,{FACE},{SAME}", "a.jpg,-1,-1,-1,-1,-1,-1,100,150,190,240"
    for blank in ("large", "all"):
        people = source(*lines, blank=blank)
        body = decode(samples_of(people)[0].body)
        assert (body[132:218, 92:178] < 20).all() == (blank == "all")
        assert people.crop_policy["blank"] == blank


def test_genders_as_numbers_are_refused_or_read_as_it_is_said(source):
    lines = [f"a.jpg,30,1,{FACE},,,,", f"sub/b.png,30,-1,{FACE},,,,"]
    with pytest.raises(UserError, match=r"column gender holds numbers \(-1, 1\)"):
        source(*lines)
    assert [sample.labels.gender for sample in samples_of(source(*lines, gender_codes="1=M,-1=F"))] == ["M", "F"]


def test_a_group_stays_a_word(source):
    (sample,) = samples_of(source(f"a.jpg,30,F,{FACE},,,,,3", header=f"{HEADER},group"))
    assert sample.labels.group == "3" and sample.labels.to_json()["group"] == "3"


def test_a_persons_photos_come_into_one_split(tmp_path):
    """Also over a photo of two people, whose other photos then stay together as well."""
    people, lines = [f"person{number:02d}" for number in range(30)], [f"{HEADER},identity"]
    for number in range(90):
        Image.effect_noise((64, 64), number + 1).convert("RGB").save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,30,F,0,0,30,64,,,,,{people[number % 30]}")
        if number < 2:
            lines.append(f"{number}.png,30,F,34,0,64,64,,,,,{people[number + 10]}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    source = AnnotationSource(tmp_path, tmp_path / "labels.csv")
    packed = pack(source, tmp_path / "out", {"train": 0.5, "val": 0.5})
    found = {}
    for split, index in packed.splits.items():
        with tarfile.open(index.shard_path(0)) as tar:
            found[split] = [json.load(tar.extractfile(one)) for one in tar if one.name.endswith(".json")]
    for field in ("identity", "source"):
        parts = {split: {label[field] for label in labels} for split, labels in found.items()}
        assert not parts["train"] & parts["val"] and len(parts["train"] | parts["val"]) == {"identity": 30}.get(
            field, 90
        )
        assert min(map(len, parts.values())) > 5


def test_a_bad_line_does_not_spoil_its_neighbours(source):
    people = source("a.jpg,30,M,20,30,left,100,-1,-1,-1,-1", "a.jpg,33,F,220,30,280,100,210,20,390,290")
    with pytest.raises(Rejected):
        people.read("a.jpg#2")
    assert people.read("a.jpg#3").samples[0].body


def test_a_bad_csv_or_folder_is_one_clear_line(source, tmp_path):
    for make, message in (
        (lambda: source("a.jpg,30", header="img_name,age"), "column gender is missing"),
        (lambda: source("a.jpg,-1,-1,20,30,80,100,,,,"), "nobody"),
        (lambda: AnnotationSource(tmp_path, tmp_path / "gone.csv"), "No such file.*give a file of CSV"),
        (lambda: AnnotationSource(tmp_path / "gone", tmp_path / "labels.csv"), "no such folder"),
        (lambda: AnnotationSource(tmp_path, tmp_path / "sub/b.png"), "not a CSV in UTF-8"),
    ):
        with pytest.raises(UserError, match=message) as error:
            make()
        assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_damaged_csv_is_read_or_one_clear_line(source, tmp_path):
    source(*[f"a.jpg,25;32,F,{FACE},{SAME}", f"sub/b.png,-1,male,{FACE},,,,", f"a.jpg,4,-1,220,30,280,100,{SAME}"] * 2)
    good = (tmp_path / "labels.csv").read_bytes()
    junk = [b'"', b",", b"\n", b"\r", b"\0", b"\xff", b";", b"-", b"1e999", b"nan", b"0" * 5000, "\u2028٣²".encode()]
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(good)
        for place in rng.integers(len(HEADER) * (rng.random() < 0.7), len(good), rng.integers(1, 4)):
            new = junk[rng.integers(len(junk))]
            damaged[place : place + len(new) * (rng.random() < 0.5)] = new
        (tmp_path / "labels.csv").write_bytes(damaged)
        try:
            people = AnnotationSource(tmp_path, tmp_path / "labels.csv")
            for item in people.items():
                with suppress(Rejected):
                    people.read(item)
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 500


def test_a_spreadsheets_csv_is_read(source, tmp_path):
    source("a.jpg,30,M,20,30,80,100,,,,")
    text = f"\ufeff{HEADER}\r\n" + '"a.jpg","31.0",F,20.0,30.0,80.0,100.0,-1.0,-1.0,-1.0,-1.0\r\n\r\n'
    (tmp_path / "labels.csv").write_text(text, newline="")
    people = AnnotationSource(tmp_path, tmp_path / "labels.csv")
    assert only_sample(people).labels.age == (31, 31)


@pytest.mark.slow
@pytest.mark.skipif(
    not {"PARITY_DIR", "FAIRFACE_DIR"} <= set(os.environ),
    reason="needs PARITY_DIR (crops.csv and crops.npz of MiVOLO's reader) and FAIRFACE_DIR (its photos)",
)
@pytest.mark.parametrize("crop_size", [448, 224])
def test_crops_are_those_of_mivolos_training_reader(crop_size):
    parity = Path(os.environ["PARITY_DIR"])
    people = AnnotationSource(Path(os.environ["FAIRFACE_DIR"]), parity / "crops.csv", crop_size=crop_size)
    samples = {}
    for item in people.items():
        (sample,) = people.read(item).samples
        samples[sample.labels.extra["source"], sample.labels.age[0], sample.labels.gender] = sample
    expected = np.load(parity / "crops.npz")
    assert len(samples) == len(expected["image"])
    for number, (image, age, gender) in enumerate(
        zip(expected["image"], expected["age"], expected["gender"], strict=True)
    ):
        sample = samples[str(image), float(age), str(gender)]
        for name in ("face", "body"):
            crop, reference = getattr(sample, name), expected[name][number]
            assert (crop is None) == (not reference.any()), f"{name} of {image}"
            if crop is not None:
                difference = np.abs(letterbox(decode(crop), 224).astype(int) - reference).mean()
                assert difference <= 2, f"{name} of {image}"
