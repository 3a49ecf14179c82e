"""Every data set by its name: its published layout, what its images mean, its parts and folds."""

import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mivolo_lite.cli import main
from mivolo_lite.errors import UserError
from mivolo_lite.images.align import align
from mivolo_lite.images.jpeg import decode
from mivolo_lite.packing.decode import read_photo
from mivolo_lite.packing.pack import pack
from mivolo_lite.packing.sources import SOURCES, summary_of
from mivolo_lite.packing.splitting import Splitting
from mivolo_lite.shards.rejects import Rejected
from tests.packing.layouts import LAYOUTS, face, text


def made(name: str, root: Path, **options):
    layout = LAYOUTS[name](root)
    return layout, SOURCES[name.partition(" ")[0]](**(layout.options | options))


def image_of(item: str) -> str:
    return item.partition("#")[0]


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_published_layout_is_read(name, tmp_path):
    layout, source = made(name, tmp_path)
    found, rejected = [], {}
    for item in source.items():
        try:
            image = source.read(item)
        except Rejected as reason:
            rejected[image_of(item)] = str(reason)
            continue
        (sample,) = image.samples
        labels = sample.labels.to_json()
        found.append((labels.pop("source"), labels, image.split))
        assert sample.face or sample.body
        assert (image.together is None) == ("identity" not in labels)
    assert sorted(found, key=str) == sorted(layout.expected, key=str)
    assert rejected.keys() == layout.rejected.keys()
    assert all(layout.rejected[image] in reason for image, reason in rejected.items())
    assert set(source.splits) == {part for *_, part in layout.expected} - {None}
    assert source.has_folds == any("fold" in labels for _, labels, _ in layout.expected)
    again = pickle.loads(pickle.dumps(source))
    assert again.items() == source.items() and repr(vars(again)) == repr(vars(source))


@pytest.mark.parametrize("name", LAYOUTS)
def test_it_packs_with_its_own_parts(name, tmp_path):
    layout, source = made(name, tmp_path / "set")
    shares = {"all": 1.0} if not source.splits and not source.has_folds else None
    packed = pack(source, tmp_path / "out", shares, max_reject_rate=0.5)
    parts = {name: len(index) for name, index in packed.splits.items()}
    expected = [part or "all" for *_, part in layout.expected]
    assert parts == {part: expected.count(part) for part in expected}


@pytest.mark.parametrize("name", sorted({name.partition(" ")[0] for name in LAYOUTS} - {"agedb", "morph"}))
def test_the_command_needs_the_folder_and_little_else(name, tmp_path, capsys):
    layout, _ = made(name, tmp_path / "set")
    options = [word for option, value in layout.options.items() for word in (f"--{option}", str(value))]
    main(["pack", name, *options, "--out", str(tmp_path / "out"), "--split", "x=1", "--max_reject_rate", "0.5",
          "--workers", "1"])  # fmt: skip
    assert f"x: {len(layout.expected)} samples" in capsys.readouterr().out


@pytest.mark.parametrize("name", [name for name in LAYOUTS if not name.startswith("paplhjak")])
def test_another_folder_is_one_clear_line(name, tmp_path):
    layout = LAYOUTS[name](tmp_path / "set")
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "gone"):
        with pytest.raises(UserError, match="--images") as error:
            source = SOURCES[name.partition(" ")[0]](**(layout.options | {"images": folder}))
            source.items()
        assert "\n" not in str(error.value)


def test_every_source_is_listed_with_a_sentence(capsys):
    main(["pack", "--help"])
    shown = capsys.readouterr().out
    for name, source in SOURCES.items():
        assert re.search(rf"^  {name} +\S", shown, re.MULTILINE), name
        assert 10 < len(summary_of(source)) < 130, name
    with pytest.raises(SystemExit):
        main(["pack", "celeba", "--help"])
    assert "--align" in capsys.readouterr().out


def test_faces_of_others_are_blanked_by_lagenda(tmp_path):
    _, source = made("lagenda", tmp_path)
    body = decode(source.read(source.items()[0]).samples[0].body)
    assert body.shape == (180, 150, 3) and (body[22:38, 122:138] < 20).all() and (body[12:38, 12:38] < 20).all()


def test_names_of_lagenda_may_hold_the_folder_of_the_photos(tmp_path):
    _, source = made("lagenda", tmp_path)
    table = tmp_path / "lagenda_annotation.csv"
    table.write_text(re.sub(r"^(?=[ab]\.)", "lag_benchmark/", table.read_text(), flags=re.MULTILINE))
    again = SOURCES["lagenda"](images=tmp_path)
    assert again.items()[0] == "lag_benchmark/a.jpg.jpg#2"
    assert again.read(again.items()[0]).identity == source.read(source.items()[0]).identity


def test_boxes_of_imdb_clean_are_cut(tmp_path):
    _, source = made("imdb_clean", tmp_path)
    assert decode(source.read(source.items()[0]).samples[0].face).shape == (40, 30, 3)
    with pytest.raises(UserError, match="has no folder of photos; looked for imdb, imdb_crop"):
        made("imdb_clean", tmp_path / "again", original=True)


def test_bodies_of_peta_are_bodies(tmp_path):
    _, source = made("peta", tmp_path)
    (sample,) = source.read(source.items()[0]).samples
    assert sample.face is None and decode(sample.body).shape == (40, 16, 3)
    assert source.notes == ["1 people without labels: no samples"]


def test_rotated_boxes_are_cut_upright(tmp_path):
    """A square turned by about 53 degrees, whose quarters have the colours that they have upright."""
    _, source = made("paplhjak", tmp_path)
    corners = np.array([[40, 10], [70, 50], [30, 80], [0, 40]], float)
    pixels = np.zeros((90, 90, 3), np.uint8)
    across, down = (corners[1] - corners[0]) / 50, (corners[3] - corners[0]) / 50
    for y in range(90):
        for x in range(90):
            offset = np.array([x, y]) + 0.5 - corners[0]
            along, below = offset @ across / (across @ across), offset @ down / (down @ down)
            pixels[y, x] = [255 * (along > 25), 255 * (below > 25), 120]
    Image.fromarray(pixels).save(tmp_path / "AgeDB/0_A_35_f.jpg", quality=98, subsampling=0)
    records = (tmp_path / "AgeDB_aligned.json").read_text()
    first = records.index('"aligned_bbox"')
    box = ", ".join(str(int(number)) for number in corners.ravel())
    records = records[:first] + re.sub(r"\[[^]]*\]", f"[{box}]", records[first:], count=1)
    (tmp_path / "AgeDB_aligned.json").write_text(records)
    source = SOURCES["paplhjak"](tmp_path, tmp_path / "AgeDB_aligned.json")
    cut = decode(source.read(source.items()[0]).samples[0].face)
    assert cut.shape == (50, 50, 3)
    assert (cut[5:20, 5:20, :2] < 60).all() and (cut[30:45, 30:45, :2] > 200).all()
    assert (cut[5:20, 30:45, 0] > 200).all() and (cut[5:20, 30:45, 1] < 60).all()


def test_protocols_of_the_benchmark_are_five_and_complete():
    from mivolo_lite.packing.sources.paplhjak import PROTOCOL

    assert len(PROTOCOL) == 5
    for split in PROTOCOL:
        assert sorted(folder for folders in split.values() for folder in folders) == list(range(10))


def test_real_ages_of_appa_real_have_no_width(tmp_path):
    _, source = made("appa_real", tmp_path, age="real")
    labels = source.read(source.items()[0]).samples[0].labels.to_json()
    assert labels == {"source": "test/000002.jpg_face.jpg", "age": 22, "apparent_age": 22.5}


def test_adience_counts_what_it_maps(tmp_path):
    _, source = made("adience", tmp_path)
    assert source.notes[-1] == (
        "ages outside the eight classes: (8, 23) -> (8, 12) (1), 35 -> (25, 32) (1), 57 -> (60, 100) (1)"
    )


def test_agedb_without_its_csv_is_divided_by_person(tmp_path):
    _, source = made("agedb", tmp_path, csv=None)
    assert not source.splits
    together = [source.read(item).together for item in source.items()]
    assert together[1] == together[2] != together[0]
    face(tmp_path / "AgeDB/9_X_3_m.jpg")
    _, source = made("agedb", tmp_path)
    with pytest.raises(Rejected, match="not in the CSV of splits"):
        source.read("AgeDB/9_X_3_m.jpg")


def test_a_changed_list_is_one_clear_line(tmp_path):
    for name, file, content, message in (
        ("celeba", "Anno/list_attr_celeba.txt", "2\nMale Young\n000001.jpg 1\n", "line 3: 1 values for 2 names"),
        ("celeba", "Anno/list_attr_celeba.txt", "2\nYoung\n000001.jpg 1\n", "no attribute Male"),
        ("appa_real", "gt_avg_test.csv", "file_name\nx\n", "column apparent_age_avg is missing"),
        ("adience", "fold_3_data.txt", "user_id\nx\n", "column age is missing"),
        ("imdb_clean", "imdb_test_new_1024.csv", "filename,age\nx,1\n", "column gender is missing"),
        ("paplhjak", "AgeDB_aligned.json", '[{"img_path": "x", "age": 1, "folder": "y"}]', "folder 'y' is no number"),
        ("paplhjak", "AgeDB_aligned.json", '[{"img_path": "x", "age": 1}]', "folder is missing"),
    ):
        root = tmp_path / f"{name}{len(message)}"
        layout = LAYOUTS[name](root)
        text(root / file, content)
        with pytest.raises(UserError, match=message):
            SOURCES[name](**layout.options)


DATA = Path(os.environ.get("SETS_DIR", "nowhere"))
REAL = {
    "utkface": ("utkface_part1", {}, 7830, None),
    "fairface": ("fairface_sample", {"csv": "labels.csv"}, 270, None),
    "annotations": ("congress", {"csv": "annotations.csv"}, 1117, 918),
    "fgnet": ("fgnet", {}, 825, 69),
}


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="needs SETS_DIR, a folder with the sets of REAL")
@pytest.mark.parametrize("name", REAL)
def test_real_sets_have_the_counts_of_their_descriptions(name, tmp_path):
    folder, options, count, people = REAL[name]
    options = {option: DATA / folder / value for option, value in options.items()}
    source = SOURCES[name](DATA / folder, **options)
    shares = {"train": 0.8, "val": 0.2}
    packed = pack(source, tmp_path / "out", Splitting(shares, stratify="age"), workers=2)
    assert sum(map(len, packed.splits.values())) == count
    if people:
        assert f"0 people are in two splits, of {people}" in packed.notes


def test_celeba_is_aligned_by_its_landmarks(tmp_path):
    _, source = made("celeba", tmp_path, align=True, crop_size=112)
    image = np.random.default_rng(0).integers(0, 256, (218, 178, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "Img/img_align_celeba/000001.jpg", quality=98)
    photo = read_photo(tmp_path / "Img/img_align_celeba/000001.jpg").image
    landmarks = np.array([69, 109, 106, 113, 77, 142, 73, 152, 108, 154], float).reshape(5, 2)
    face_of = decode(source.read(source.items()[0]).samples[0].face)
    assert np.abs(face_of.astype(int) - align(photo, landmarks, 112)).mean() < 3
    assert source.crop_policy["align"] is True


def test_rafdb_is_aligned_from_the_originals(tmp_path):
    layout = LAYOUTS["rafdb"](tmp_path)
    for stem in ("train_00001", "test_0001", "test_0002"):
        face(tmp_path / f"Image/original/{stem}.jpg", 1, 60)
    source = SOURCES["rafdb"](**layout.options, align=True)
    images = {image_of(item): item for item in source.items()}
    assert set(images) == {"train_00001.jpg", "test_0001.jpg", "test_0002.jpg"}
    with pytest.raises(Rejected, match="landmarks: .* are not numbers"):
        source.read(images["test_0002.jpg"])
    with pytest.raises(UserError, match="has no folder of faces"):
        SOURCES["rafdb"](images=tmp_path / "EmoLabel", align=True)


def test_sources_without_landmarks_refuse_alignment(tmp_path):
    for name in ("utkface", "fgnet", "appa_real", "imdb_clean"):
        with pytest.raises(UserError, match="--align"):
            made(name, tmp_path / name, align=True)


def test_rules_of_cutting_are_refused_where_nothing_is_cut(tmp_path):
    for name in ("utkface", "fgnet", "adience"):
        with pytest.raises(UserError, match="--face_shift 0.1: the images are taken whole"):
            made(name, tmp_path / name, face_shift=0.1)


def test_morphs_images_without_a_row_are_counted_and_a_csv_of_other_images_is_an_error(tmp_path):
    layout, source = made("morph", tmp_path / "set")
    assert source.notes == ["groups are unknown of 1 of 3 images, which the CSV does not name"]
    text(tmp_path / "other.csv", "photo,race\n000001_00M20.JPG,W\n")
    with pytest.raises(UserError, match="other.csv: names none of the 3 images, such as .*; give MORPH's CSV"):
        SOURCES["morph"](layout.options["images"], csv=tmp_path / "other.csv")


def test_aligning_celeba_without_its_landmarks_names_the_file(tmp_path):
    layout = LAYOUTS["celeba (Kaggle)"](tmp_path)
    with pytest.raises(UserError, match="has no list_landmarks_align_celeba.txt, which --align needs"):
        SOURCES["celeba"](**layout.options, align=True)
