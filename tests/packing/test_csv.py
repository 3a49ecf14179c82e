"""Any table of labels becomes shards; what its columns and values are taken for is printed first."""

import json

import numpy as np
import pytest
from PIL import Image

from mivolo_lite.cli import main
from mivolo_lite.errors import UserError
from mivolo_lite.images.jpeg import decode
from mivolo_lite.packing.pack import pack
from mivolo_lite.packing.sources.csv import CsvSource
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.rejects import Rejected
from mivolo_lite.shards.subset import fold_numbers, select_folds
from tests.packing.shard_content import labels_of
from tests.shards.tiny_shards import noise_jpeg


@pytest.fixture
def source(tmp_path):
    """Makes a source of the lines given, over the images ``0.jpg`` ... ``9.jpg`` of 40 x 40."""
    for number in range(10):
        (tmp_path / f"{number}.jpg").write_bytes(noise_jpeg(number, 40))

    def make(*lines: str, **options) -> CsvSource:
        (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
        return CsvSource(tmp_path, tmp_path / "labels.csv", **options)

    return make


def samples_of(source):
    return [sample for item in source.items() for sample in source.read(item).samples]


@pytest.mark.parametrize(
    "header, row",
    [
        ("path,age,gender", "0.jpg,31,M"),
        ("file;real_age;sex", "0.jpg;31;male"),
        ("img_name\tAge\tGender", "0.jpg\t31\tMale"),
        ("Image,Age,Sex,x", '0.jpg,31 years,m,""'),
    ],
)
def test_whole_images_are_faces_byte_for_byte(source, header, row):
    (sample,) = samples_of(source(header, row))
    assert (sample.face, sample.body) == (noise_jpeg(0, 40), None)
    assert (sample.labels.age, sample.labels.gender) == ((31, 31), "M")


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_whole_images_of_a_few_pixels_are_rejected(ending, source, tmp_path):
    Image.new("RGB", (40, 4)).save(tmp_path / f"small.{ending}")
    with pytest.raises(Rejected, match="under 5 px"):
        samples_of(source("path,age", f"small.{ending},31"))


def test_whole_images_may_be_bodies_and_boxes_are_cut(source):
    (sample,) = samples_of(source("path,age", "0.jpg,31", whole="body"))
    assert (sample.face, sample.body) == (None, noise_jpeg(0, 40))
    (sample,) = samples_of(source("path,age,l,t,r,b", "0.jpg,31,5,6,25,36", boxes="l,t,r,b"))
    assert decode(sample.face).shape == (30, 20, 3)


def test_what_is_not_asked_for_is_a_label_of_a_task(source):
    (sample,) = samples_of(source("path,real_age,age_std,smile,who", "0.jpg,31,4.5,yes,7", identity="who"))
    assert sample.labels.extra == {"source": "0.jpg", "age_std": 4.5, "smile": "yes", "identity": "7"}


def test_people_without_labels_are_counted(source):
    assert source("path,age", "0.jpg,31", "1.jpg,").notes == ["1 people without labels: no samples"]
    rows = ("path,age,l,t,r,b", "0.jpg,31,1,1,9,9", "0.jpg,,20,1,29,9")
    assert source(*rows, boxes="l,t,r,b").notes == ["1 people without labels: no samples"]  # of faces alone
    with_bodies = source(*rows, boxes="l,t,r,b", body_from_face=True)
    assert with_bodies.notes == ["1 people without age and gender: no samples, but blanked out of others' bodies"]


def test_columns_that_cannot_name_a_label_are_told(source):
    people = source("path,age,smile,hair color,head-pose,", "0.jpg,31,1,red,5,7")
    assert people.notes == ["columns left out, rename them with letters, digits and _ alone: hair color, head-pose"]


def test_cells_that_say_nothing_are_nobody_and_no_width(source):
    people = source("path,age,age_std,identity", "0.jpg,31,NA,nan", "1.jpg,31,2,7")
    assert [people.read(item).together for item in people.items()] == [None, b"7"]
    assert [sample.labels.extra.get("age_std") for sample in samples_of(people)] == [None, 2]


@pytest.mark.parametrize("nothing", ["NA", "NaN", "null", "n/a"])
def test_what_r_and_pandas_write_for_nothing_is_no_label(source, nothing):
    people = source("path,age,race,identity,score", f"0.jpg,31,{nothing},{nothing},{nothing}", "1.jpg,31,White,7,0.5")
    (unknown, known), items = samples_of(people), people.items()
    assert unknown.labels.group is None and unknown.labels.extra == {"source": "0.jpg"}
    assert known.labels.group == "White" and known.labels.extra == {"source": "1.jpg", "identity": "7", "score": 0.5}
    assert [people.read(item).together for item in items] == [None, b"7"]


@pytest.mark.parametrize("word", ["unknown", "None"])
def test_people_without_a_name_are_not_one_person(source, word):
    people = source("path,age,identity,glasses", f"0.jpg,31,{word},{word}")
    assert people.read(people.items()[0]).together is None
    assert samples_of(people)[0].labels.extra == {"source": "0.jpg", "glasses": word}


def test_rows_of_one_whole_image_are_one_person(source):
    people = source("path,age", "0.jpg,31", "0.jpg,31")
    assert len(samples_of(people)) == 1 and people.notes == [
        "1 rows of people who have another row with nearly the same box: taken as one person"
    ]


def test_two_spellings_of_a_path_are_one_image(source):
    packed = source("path,age,gender", "0.jpg,31,", "./0.jpg,,M", ".//1.jpg,32,F")
    first, second = samples_of(packed)
    assert (first.labels.to_json(), second.key) == ({"age": 31, "gender": "M", "source": "0.jpg"}, "1")


@pytest.mark.parametrize("columns", ["x,y,w,h", "box_left,box_top,box_width,box_height", "X,Y,Width,Height"])
def test_widths_are_no_edges(source, columns):
    with pytest.raises(UserError, match="--boxes .*: holds a width or a height; give the left, top, right and bottom"):
        source(f"path,age,{columns}", "0.jpg,31,5,6,25,36", boxes=columns)


def test_bodies_are_guessed_from_boxes_alone(source):
    with pytest.raises(UserError, match="--body_from_face needs the faces' boxes, and there are none to guess from"):
        source("path,age", "0.jpg,31", body_from_face=True)


def test_columns_that_may_be_people_or_boxes_are_told(source):
    line = "other columns are labels: id, x1; name one with --identity if it says who it is, or --boxes if it is an"
    assert any(text.startswith(line) for text in source("path,age,id,x1", "0.jpg,31,a,5").preface)
    known = source("path,age,person,l,t,r,b,smile", "0.jpg,31,a,5,6,25,36,1", boxes="l,t,r,b").preface
    assert "other columns are labels: smile" in known


def test_people_in_two_folds_are_counted(source, tmp_path):
    rows = [f"{number}.jpg,31,{who},{number % 2}" for number, who in enumerate("aabbc")]
    packed = pack(source("path,age,person,fold", *rows), tmp_path / "out")
    assert packed.notes == ["2 people are in two folds, of 3"]


def test_a_column_that_shards_have_of_their_own_is_told(source):
    assert source("path,age,source", "0.jpg,31,imdb").notes == [
        "column source left out, since a sample's JSON names its image so: rename it"
    ]


def test_a_column_of_folds_is_kept_and_the_samples_stay_together(source, tmp_path, capsys):
    source("path,age,Fold", *(f"{n}.jpg,{30 + n},{n % 3 + 1 if n else ''}" for n in range(10)))
    main(["pack", "csv", "--images", str(tmp_path), "--csv", str(tmp_path / "labels.csv"), "--out", f"{tmp_path}/out"])
    index = ShardIndex.load(tmp_path / "out" / "all")
    assert fold_numbers(index) == [1, 2, 3] and len(select_folds(index, [2])) == 3
    printed = capsys.readouterr().out
    assert "Fold is fold" in printed and "warning: 1 sample of 10 have no fold, so `folds` never takes them" in printed
    with pytest.raises(UserError, match="fold 'first' is no number; write folds as numbers"):
        source("path,age,fold", "0.jpg,31,first")


def test_absent_boxes_are_told_how_to_be_whole(source):
    lines = "path,age,face_x0,face_y0,face_x1,face_y1", "0.jpg,31,-1,-1,-1,-1"
    people = source(*lines)
    with pytest.raises(Rejected, match="there is no box; --whole face takes the whole image"):
        people.read(people.items()[0])
    assert samples_of(source(*lines, whole="face"))[0].face == noise_jpeg(0, 40)


@pytest.mark.parametrize(
    "column, values, message",
    [
        ("Male", ("1", "-1"), r"column Male holds numbers \(-1, 1\).*--gender_codes 1=M,-1=F"),
        ("sex", ("1", "-1"), r"column sex holds numbers \(-1, 1\).*--gender_codes 1=M,-1=F or the other way"),
        ("gender", ("0", "1"), r"column gender holds numbers \(0, 1\).*--gender_codes 0=M,1=F or the other way"),
    ],
)
def test_genders_as_numbers_are_refused_unless_it_is_said(source, column, values, message):
    lines = [f"path,{column}", *(f"{number}.jpg,{value}" for number, value in enumerate(values))]
    with pytest.raises(UserError, match=message):
        source(*lines)
    codes = f"{values[0]}=M,{values[1]}=F"
    assert [sample.labels.gender for sample in samples_of(source(*lines, gender_codes=codes))] == ["M", "F"]


def test_a_png_a_webp_and_a_turned_jpeg_are_stored_upright(source, tmp_path):
    pixels = np.zeros((48, 40, 3), np.uint8)
    pixels[:24] = 200
    scene = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, options in (("a.png", {}), ("a.webp", {"lossless": True}), ("a.tif", {}), ("a.jpg", {})):
        turned = {"exif": exif} if name != "a.tif" else {}
        (scene.transpose(Image.Transpose.ROTATE_90) if turned else scene).save(tmp_path / name, **turned, **options)
    for sample in samples_of(source("path,age", "a.png,1", "a.webp,2", "a.tif,3", "a.jpg,4")):
        stored = decode(sample.face)
        assert stored.shape == (48, 40, 3) and stored[:20].mean() > 190 and stored[-20:].mean() < 10


def test_the_command_prints_the_mapping_first_and_people_and_ages_last(source, tmp_path, capsys):
    source("file,real_age,sex,who", *(f"{n}.jpg,{20 + n},{'mf'[n % 2]},p{n // 2}" for n in range(10)))
    main(f"pack csv --images {tmp_path} --csv {tmp_path}/labels.csv --identity who --out {tmp_path}/out "
         "--split a=0.5,b=0.5 --workers 1".split())  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("10 rows; file is the image, real_age is age, sex is gender, who is identity")
    assert lines[1:3] == ["gender: m -> M (5), f -> F (5)", "age: 10 numbers"]
    assert "a: ages 20-29 100%" in lines and "0 people are in two splits, of 5" in lines


def test_a_column_of_parts_is_obeyed(source, tmp_path, capsys):
    parts = ["train", "Validation", "test", "TRAIN", "val"] * 2
    source("path,age,part,who", *(f"{n}.jpg,{n},{part},{n % 3}" for n, part in enumerate(parts)))
    command = f"pack csv --images {tmp_path} --csv {tmp_path}/labels.csv --workers 1 --identity who"
    main(f"{command} --split part --out {tmp_path}/out".split())
    assert "3 people are in two splits, of 3" in capsys.readouterr().out
    sizes = {name: len(ShardIndex.load(tmp_path / "out" / name)) for name in ("train", "val", "test")}
    assert sizes == {"train": 4, "val": 4, "test": 2}
    main(f"{command} --split_column part --split all=1 --out {tmp_path}/all".split())
    assert len(ShardIndex.load(tmp_path / "all" / "all")) == 10


def test_two_names_for_the_column_of_parts_are_one_line(source, tmp_path, capsys):
    source("path,age,part", "0.jpg,1,train")
    with pytest.raises(SystemExit):
        main(f"pack csv --images {tmp_path} --csv {tmp_path}/labels.csv --split part --split_column age "
             f"--out {tmp_path}/out".split())  # fmt: skip
    assert "--split part --split_column age: both name a column" in capsys.readouterr().err


def test_a_row_without_a_part_is_rejected_where_others_have_one(source, tmp_path):
    people = source("path,age,split", "0.jpg,1,train", "1.jpg,2,")
    packed = pack(source("path,age,split", "0.jpg,1,train", "1.jpg,2,"), tmp_path / "out", {"all": 1.0})
    assert len(packed.splits["all"]) == 2 and not packed.rejected  # shares are given, so nobody asks for the part
    with pytest.raises(Rejected, match="names no split"):
        people.read("1.jpg#3")
    with pytest.raises(UserError, match="split 'a/b' cannot name a folder"):
        source("path,age,split", "0.jpg,1,a/b")


def test_a_bad_table_is_one_clear_line(source, tmp_path):
    for make, message in (
        (lambda: source("path", "0.jpg"), "holds one column"),
        (lambda: source("path,age", "0.jpg,-1"), "nobody in it has an age or a gender; label the people"),
        (
            lambda: source("path,years,face_x0,face_y0,face_x1,face_y1", "0.jpg,31,1,1,30,30"),
            "nobody in it has an age or a gender; if one of years holds them, .* `pack csv --age`",
        ),
        (lambda: source("path,age", "0.jpg,1", align=True), "--align needs the columns lefteye_x to rightmouth_y"),
        (lambda: source("path,age", "0.jpg,1", min_body=0), "--min_body 0"),
        (lambda: source("path,age", "0.jpg,1", min_face=50), "--min_face 50: the images are taken whole"),
        (lambda: source("path,age,face_corners", "0.jpg,1,", face_square=1.0), "face_corners frames the faces"),
        (lambda: CsvSource(tmp_path / "gone", tmp_path / "labels.csv"), "--images .*gone: no such folder"),
    ):
        with pytest.raises(UserError, match=message):
            make()


def test_json_lines_pack_as_a_csv_does(source, tmp_path):
    packed = pack(source("path,age,gender", *(f"{n}.jpg,{n},F" for n in range(10))), tmp_path / "a", {"x": 1.0})
    rows = [{"path": f"{n}.jpg", "age": n, "gender": "F"} for n in range(10)]
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    again = pack(CsvSource(tmp_path, tmp_path / "labels.jsonl"), tmp_path / "b", {"x": 1.0})
    assert again.splits["x"].digest == packed.splits["x"].digest
    assert labels_of(again.splits["x"])[0]["gender"] == "F"
