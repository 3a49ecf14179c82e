"""Tiny trees of the published layouts of data sets, quirks included, and what each image means."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tests.shards.tiny_shards import noise_jpeg


class Layout(NamedTuple):
    """What a source is given, and what it must make of it.

    Attributes:
        options: of the source.
        expected: (source, labels as JSON without ``source``, part) of every sample, in the order of the items.
        rejected: items that cannot be used, and why.
    """

    options: dict
    expected: list[tuple[str, dict, str | None]]
    rejected: dict[str, str] = {}


def face(path: Path, number: int = 0, side: int = 24) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(noise_jpeg(number, side))


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def adience(root: Path) -> Layout:
    header = "user_id\toriginal_image\tface_id\tage\tgender\tx\ty\tdx\tdy\ttilt_ang\tfiducial_yaw_angle\tfiducial_score"
    rows = {
        0: [("30@N00", "9_a.jpg", 1, "(25, 32)", "f"), ("30@N00", "8_b.jpg", 2, "35", "m")],
        1: [("7@N01", "1_o.jpg", 1, "(8, 23)", ""), ("7@N01", "2_o.jpg", 3, "None", "u")],
        2: [("8@N02", "3_o.jpg", 1, "(60, 100)", "u")],
        3: [("9@N02", "4_o.jpg", 1, "(0, 2)", "m")],
        4: [("a@N02", "5_o.jpg", 1, "57", "f")],
    }
    for fold, lines in rows.items():
        cells = ["\t".join([*map(str, line), *["0"] * 7]) for line in lines]
        text(root / f"fold_{fold}_data.txt", "\n".join([header, *cells]) + "\n")
        for user, image, number, *_ in lines:
            face(root / "aligned" / user / f"landmark_aligned_face.{number}.{image}")
    aligned = "landmark_aligned_face"
    labels = {
        f"30@N00/{aligned}.1.9_a.jpg": {"age": [25, 32], "gender": "F", "identity": "30@N00", "fold": 0},
        f"30@N00/{aligned}.2.8_b.jpg": {"age": [25, 32], "gender": "M", "identity": "30@N00", "fold": 0},
        f"7@N01/{aligned}.1.1_o.jpg": {"age": [8, 12], "identity": "7@N01", "fold": 1},
        f"8@N02/{aligned}.1.3_o.jpg": {"age": [60, 100], "identity": "8@N02", "fold": 2},
        f"9@N02/{aligned}.1.4_o.jpg": {"age": [0, 2], "gender": "M", "identity": "9@N02", "fold": 3},
        f"a@N02/{aligned}.1.5_o.jpg": {"age": [60, 100], "gender": "F", "identity": "a@N02", "fold": 4},
    }
    return Layout({"images": root}, [(image, meaning, None) for image, meaning in labels.items()])


def afad(root: Path) -> Layout:
    for name in ("AFAD-Full/15/111/12-0.jpg", "AFAD-Full/40/112/7-3.jpg", "AFAD-Full/40/113/7-4.jpg"):
        face(root / name)
    return Layout(
        {"images": root},
        [
            ("AFAD-Full/15/111/12-0.jpg", {"age": 15, "gender": "M", "identity": "12"}, None),
            ("AFAD-Full/40/112/7-3.jpg", {"age": 40, "gender": "F", "identity": "7"}, None),
        ],
        {"AFAD-Full/40/113/7-4.jpg": "file name is not"},
    )


def agedb(root: Path) -> Layout:
    composed, decomposed = "4_Ren\u00e9Clair_40_m.jpg", "5_Rene\u0301Clair_51_m.jpg"
    for name in ("0_MariaCallas_35_f.jpg", composed, decomposed):
        face(root / "AgeDB" / name)
    text(
        root / "agedb.csv",
        "age,path,split\n35,AgeDB/0_MariaCallas_35_f.jpg,train\n40,AgeDB/4_Rene\u0301Clair_40_m.jpg,val\n"
        "51,AgeDB/5_Rene\u0301Clair_51_m.jpg,test\n",
    )
    return Layout(
        {"images": root, "csv": root / "agedb.csv"},
        [
            ("AgeDB/0_MariaCallas_35_f.jpg", {"age": 35, "gender": "F", "identity": "MariaCallas"}, "train"),
            (f"AgeDB/{composed}", {"age": 40, "gender": "M", "identity": "Ren\u00e9Clair"}, "val"),
            (f"AgeDB/{decomposed}", {"age": 51, "gender": "M", "identity": "Ren\u00e9Clair"}, "test"),
        ],
    )


def appa_real(root: Path) -> Layout:
    header = "file_name,num_ratings,apparent_age_avg,apparent_age_std,real_age"
    for number, part in enumerate(("train", "valid", "test")):
        text(root / f"gt_avg_{part}.csv", f"{header}\n00000{number}.jpg,30,{20 + number}.5,{number}.25,{20 + number}\n")
        face(root / part / f"00000{number}.jpg_face.jpg")
    text(root / "gt_avg_train.csv", f"{header}\n000000.jpg,30,20.5,0.0,20\n")
    return Layout(
        {"images": root},
        [
            ("test/000002.jpg_face.jpg", {"age": 22.5, "age_std": 2.25, "real_age": 22}, "test"),
            ("train/000000.jpg_face.jpg", {"age": 20.5, "age_std": 0, "real_age": 20}, "train"),
            ("valid/000001.jpg_face.jpg", {"age": 21.5, "age_std": 1.25, "real_age": 21}, "val"),
        ],
    )


def cacd(root: Path) -> Layout:
    for name in ("53_Robin_Williams_0001.jpg", "14_Aaron_Johnson_0012.jpg", "Robin_Williams.jpg"):
        face(root / "CACD2000" / name)
    return Layout(
        {"images": root / "CACD2000"},
        [
            ("14_Aaron_Johnson_0012.jpg", {"age": 14, "identity": "Aaron_Johnson"}, None),
            ("53_Robin_Williams_0001.jpg", {"age": 53, "identity": "Robin_Williams"}, None),
        ],
        {"Robin_Williams.jpg": "file name is not"},
    )


def celeba(root: Path) -> Layout:
    names = ["000001.jpg", "000002.jpg", "000003.jpg"]
    attributes = "3\n5_o_Clock_Shadow Male Smiling \n000001.jpg -1 -1  1\n000002.jpg  1  1 -1 \n000003.jpg  1  1  1\n"
    text(root / "Anno/list_attr_celeba.txt", attributes)
    text(root / "Anno/identity_CelebA.txt", "".join(f"{name} {7 + n}\n" for n, name in enumerate(names)))
    text(root / "Eval/list_eval_partition.txt", "".join(f"{name} {n}\n" for n, name in enumerate(names)))
    points = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
    rows = "".join(f"{name} 69  109  106  113   77  142   73  152  108  154\n" for name in names)
    text(root / "Anno/list_landmarks_align_celeba.txt", f"3\n{points}\n{rows}")
    for name in names:
        face(root / "Img/img_align_celeba" / name)
    return Layout(
        {"images": root},
        [
            ("000001.jpg", {"gender": "F", "Smiling": 1, "_5_o_Clock_Shadow": 0, "identity": "7"}, "train"),
            ("000002.jpg", {"gender": "M", "Smiling": 0, "_5_o_Clock_Shadow": 1, "identity": "8"}, "val"),
            ("000003.jpg", {"gender": "M", "Smiling": 1, "_5_o_Clock_Shadow": 1, "identity": "9"}, "test"),
        ],
    )


def celeba_kaggle(root: Path) -> Layout:
    text(root / "list_attr_celeba.csv", "image_id,Male,Smiling\n000001.jpg,-1,1\n000002.jpg,1,-1\n")
    text(root / "list_eval_partition.csv", "image_id,partition\n000001.jpg,0\n000002.jpg,2\n")
    for name in ("000001.jpg", "000002.jpg"):
        face(root / "img_align_celeba/img_align_celeba" / name)
    return Layout(
        {"images": root},
        [
            ("000001.jpg", {"gender": "F", "Smiling": 1}, "train"),
            ("000002.jpg", {"gender": "M", "Smiling": 0}, "test"),
        ],
    )


def fgnet(root: Path) -> Layout:
    for name in ("001A02.JPG", "009A22a.JPG", "082a18.jpg", "README.JPG"):
        face(root / "images" / name)
    return Layout(
        {"images": root / "images"},
        [
            ("001A02.JPG", {"age": 2, "identity": "001", "fold": 0}, None),
            ("009A22a.JPG", {"age": 22, "identity": "009", "fold": 8}, None),
            ("082a18.jpg", {"age": 18, "identity": "082", "fold": 81}, None),
        ],
        {"README.JPG": "file name is not"},
    )


def imdb_clean(root: Path) -> Layout:
    header = "filename,age,gender,x_min,y_min,x_max,y_max,head_roll,head_yaw,head_pitch"
    names = {"train": "00/nm1_rm2_1950-1-2_1990.jpg", "valid": "01/nm3_rm4_1950-1-2_1999.jpg",
             "test": "02/nm5_rm6_1980-1-2_2009.jpg"}  # fmt: skip
    for number, (part, name) in enumerate(names.items()):
        row = f"{name},{30 + number},{'MFM'[number]},5,6,35,46,0.5,-3.25,2"
        text(root / f"imdb_{part}_new_1024.csv", f"{header}\n{row}\n")
        face(root / "imdb-clean-1024" / name, number, 64)
    pose = {"head_roll": 0.5, "head_yaw": -3.25, "head_pitch": 2}
    return Layout(
        {"images": root},
        [
            (names["train"], {"age": 30, "gender": "M", "identity": "nm1"} | pose, "train"),
            (names["valid"], {"age": 31, "gender": "F", "identity": "nm3"} | pose, "val"),
            (names["test"], {"age": 32, "gender": "M", "identity": "nm5"} | pose, "test"),
        ],
    )


def lagenda(root: Path) -> Layout:
    header = "img_name,age,gender,face_x0,face_y0,face_x1,face_y1,person_x0,person_y0,person_x1,person_y1"
    rows = ["a.jpg.jpg,31,M,10,10,40,40,0,0,150,180", "a.jpg.jpg,-1,-1,120,20,140,40,110,10,190,190",
            "b.jpg,4,F,-1,-1,-1,-1,20,20,180,180"]  # fmt: skip
    text(root / "lagenda_annotation.csv", "\n".join([header, *rows]) + "\n")
    for number, name in enumerate(("a.jpg.jpg", "b.jpg")):
        face(root / "lag_benchmark" / name, number, 200)
    return Layout(
        {"images": root},
        [("a.jpg.jpg", {"age": 31, "gender": "M"}, "test"), ("b.jpg", {"age": 4, "gender": "F"}, "test")],
    )


def morph(root: Path) -> Layout:
    for name in ("00013_00M19.JPG", "00013_1M20.JPG", "009055_012F40.JPG", "notes.JPG"):
        face(root / "Album2" / name)
    text(
        root / "MORPH_Album2.csv",
        "id_num,picture_num,dob,doa,race,gender,facial_hair,age,age_diff,glasses,photo\n"
        "13,0,,,W,M,,19,,,Album2/00013_00M19.JPG\n9055,12,,,B,F,,40,,,Album2/009055_012F40.JPG\n",
    )
    return Layout(
        {"images": root / "Album2", "csv": root / "MORPH_Album2.csv"},
        [
            ("00013_00M19.JPG", {"age": 19, "gender": "M", "group": "White", "identity": "000013"}, None),
            ("00013_1M20.JPG", {"age": 20, "gender": "M", "identity": "000013"}, None),
            ("009055_012F40.JPG", {"age": 40, "gender": "F", "group": "Black", "identity": "009055"}, None),
        ],
        {"notes.JPG": "file name is not"},
    )


def paplhjak(root: Path) -> Layout:
    box = [4, -4, 28, 4, 20, 28, -4, 20]  # turned, and partly outside
    records = [
        {"img_path": "AgeDB/0_A_35_f.jpg", "age": 35.0, "gender": "F", "database": "AgeDB", "folder": 7,
         "name": "A", "number": 0, "aligned_bbox": box, "alignment_source": "x"},
        {"img_path": "AgeDB/1_B_20_m.jpg", "age": 20.0, "gender": "M", "database": "AgeDB", "folder": 0,
         "name": "B", "number": 1, "aligned_bbox": box, "alignment_source": "x"},
        {"img_path": "AgeDB/2_C_21_m.jpg", "age": 21.0, "gender": "M", "database": "AgeDB", "folder": 9,
         "name": "C", "number": 2, "aligned_bbox": box, "alignment_source": "x"},
    ]  # fmt: skip
    text(root / "AgeDB_aligned.json", json.dumps(records))
    for record in records:
        face(root / record["img_path"])
    return Layout(
        {"images": root, "json": root / "AgeDB_aligned.json", "protocol": 0},
        [
            ("AgeDB/0_A_35_f.jpg", {"age": 35, "gender": "F", "identity": "A", "fold": 7}, "val"),
            ("AgeDB/1_B_20_m.jpg", {"age": 20, "gender": "M", "identity": "B", "fold": 0}, "train"),
            ("AgeDB/2_C_21_m.jpg", {"age": 21, "gender": "M", "identity": "C", "fold": 9}, "test"),
        ],
    )


def paplhjak_clap(root: Path) -> Layout:
    records = [
        {"img_path": f"{n}.jpg", "age": 30.5 + n, "std_age": 2.5, "database": "CLAP2016", "folder": n} for n in range(3)
    ]
    text(root / "CLAP2016.json", json.dumps(records))
    for number in range(3):
        face(root / f"{number}.jpg", number)
    return Layout(
        {"images": root, "json": root / "CLAP2016.json"},
        [(f"{n}.jpg", {"age": 30.5 + n, "age_std": 2.5, "fold": n}, part)
         for n, part in enumerate(("train", "val", "test"))],
    )  # fmt: skip


def peta(root: Path) -> Layout:
    text(root / "VIPeR/archive/Label.txt", "000 personalLess30 personalMale hairShort\n001 personalLarger60\n")
    text(root / "i-LID/archive/Label.txt", "0001 personalLess45 personalFemale\n")
    images = ("VIPeR/archive/000_45_a.bmp", "VIPeR/archive/000_90_b.bmp", "VIPeR/archive/001_0.png",
              "VIPeR/archive/999_0.png", "i-LID/archive/0001002.png")  # fmt: skip
    for number, name in enumerate(images):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (40, 16, 3), dtype=np.uint8)).save(root / name)
    first = {"age": [16, 30], "gender": "M", "identity": "VIPeR/archive/0"}
    return Layout(
        {"images": root},
        [
            (images[0], first, None),
            (images[1], first, None),
            (images[2], {"age": [61, 100], "identity": "VIPeR/archive/1"}, None),
            (images[4], {"age": [31, 45], "gender": "F", "identity": "i-LID/archive/1"}, None),
        ],
    )


def rafdb(root: Path) -> Layout:
    text(root / "EmoLabel/list_patition_label.txt", "train_00001.jpg 5\ntest_0001.jpg 4\ntest_0002.jpg 7\n")
    for stem, codes in (("train_00001", "0\n1\n2"), ("test_0001", "2\n0\n4")):
        points = "".join(f"{10 + n}\t{20 + n}\n" for n in range(5))
        text(root / f"Annotation/manual/{stem}_manu_attri.txt", f"{points}{codes}\n")
    for stem in ("train_00001", "test_0001", "test_0002"):
        face(root / f"Image/aligned/{stem}_aligned.jpg")
    return Layout(
        {"images": root},
        [
            ("test_0001_aligned.jpg", {"expression": "Happiness", "age": [70, 100], "group": "Caucasian"}, "test"),
            ("test_0002_aligned.jpg", {"expression": "Neutral"}, "test"),
            ("train_00001_aligned.jpg",
             {"expression": "Sadness", "gender": "M", "group": "African-American", "age": [20, 39]}, "train"),
        ],
    )  # fmt: skip


def utkface(root: Path) -> Layout:
    for name in ("26_0_2_20170105165200145.jpg.chip.jpg", "4_1_4_2017.png", "61_1_2017.jpg.chip.jpg"):
        face(root / name)
    return Layout(
        {"images": root},
        [
            ("26_0_2_20170105165200145.jpg.chip.jpg", {"age": 26, "gender": "M", "group": "Asian"}, None),
            ("4_1_4_2017.png", {"age": 4, "gender": "F", "group": "Others"}, None),
        ],
        {"61_1_2017.jpg.chip.jpg": "file name is not"},
    )


LAYOUTS: dict[str, Callable[[Path], Layout]] = {
    **{build.__name__: build for build in (adience, afad, agedb, appa_real, cacd, celeba, fgnet, imdb_clean)},
    **{build.__name__: build for build in (lagenda, morph, paplhjak, peta, rafdb, utkface)},
    "celeba (Kaggle)": celeba_kaggle,
    "paplhjak (CLAP)": paplhjak_clap,
}
"""By the source's name, and in brackets what else sets a layout apart."""
