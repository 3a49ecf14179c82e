"""The audit on synthetic people among whom copies, contradictions and poor images are planted."""

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import product

import cv2
import numpy as np
import pytest
import simplejpeg

from mivolo_lite.audit.audit import AuditOptions, audit, summary, whipple
from mivolo_lite.audit.duplicates import COPY_TYPES
from mivolo_lite.cli import main
from mivolo_lite.images.jpeg import decode
from mivolo_lite.packing.pack import pack
from mivolo_lite.packing.sources.utkface import UTKFaceSource
from mivolo_lite.packing.worker_shards import WorkerShard, pack_worker_shard
from mivolo_lite.shards.exclude import leave_out, read_exclusions
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.sample import Labels, Sample
from mivolo_lite.shards.scan import index_shards
from mivolo_lite.shards.storage import ShardFiles
from tests.evaluation.browser import CONTRAST, FITS, IN_A_BROWSER, LOADED, Browser
from tests.shards.tiny_shards import write_shard

ORIGINALS = 40
OPTIONS = AuditOptions(max_blur=0.7)  # synthetic faces have less detail than real ones


def jpeg(image, quality=95):
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality)


@pytest.fixture(scope="module", autouse=True)
def one_date():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        yield


@pytest.fixture(scope="module")
def faces(people):
    """Faces of synthetic people, (120, 110, 3), without the noise that is sampled on every pixel."""
    index = ShardIndex.load(people / "train")
    reader = ShardFiles(index)
    images = [decode(reader.read("face", number)) for number in range(ORIGINALS)]
    return [cv2.resize(cv2.GaussianBlur(image, (0, 0), 0.8), (110, 120)) for image in images]


def with_comment(data):
    """The same image in other bytes."""
    return data[:2] + b"\xff\xfe\x00\x06note" + data[2:]


def watermarked(image):
    marked = cv2.putText(image.copy(), "stock", (20, 100), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 1)
    return cv2.addWeighted(image, 0.5, marked, 0.5, 0)


# What is planted: name, of which original, how it was changed, kind of the link, age, gender.
COPIES = [
    ("bytes", 0, lambda image: jpeg(image), "bytes", 30, "M"),
    ("pixels", 1, lambda image: with_comment(jpeg(image)), "pixels", 30, "M"),
    ("quality", 2, lambda image: jpeg(image, 50), "near", 33, "M"),
    ("smaller", 3, lambda image: jpeg(cv2.resize(image, (66, 72), interpolation=cv2.INTER_AREA)), "near", 52, "M"),
    ("larger", 4, lambda image: jpeg(cv2.resize(image, (220, 240))), "near", 30, "F"),
    ("cut", 5, lambda image: jpeg(image[4:, 3:]), "near", 30, None),
    ("darker", 6, lambda image: jpeg((image * 0.6).astype(np.uint8)), "near", 30, "M"),
    ("grey", 7, lambda image: jpeg(np.repeat(image.mean(2, keepdims=True), 3, 2).astype(np.uint8)), "near", 30, "M"),
    ("watermark", 8, lambda image: jpeg(watermarked(image)), "near", 30, "M"),
    ("mirrored", 9, lambda image: jpeg(image[:, ::-1]), "mirrored", 30, "M"),
]


@pytest.fixture(scope="module")
def folders(faces, tmp_path_factory):
    """``train`` with the originals, ``val`` with the copies and the poor images; everybody is a man of 30."""
    folder = tmp_path_factory.mktemp("shards")
    known = Labels((30.0, 30.0), "M", "x")
    originals = [Sample(f"face{number:02d}", jpeg(face), None, known) for number, face in enumerate(faces[:30])]
    copies = [
        Sample(name, change(faces[place]), None, Labels((age, age), gender, "x"))
        for name, place, change, _, age, gender in COPIES
    ]
    poor = [
        Sample("cut_off", jpeg(faces[30])[:-200] + b"\xff\xd9", None, known),
        Sample("one_colour", jpeg(np.full((120, 110, 3), 77, np.uint8)), None, known),
        Sample("black", jpeg(np.zeros((120, 110, 3), np.uint8)), None, Labels()),
        Sample("small", jpeg(cv2.resize(faces[31], (20, 24), interpolation=cv2.INTER_AREA)), None, known),
        Sample("soft", jpeg(cv2.GaussianBlur(faces[32], (0, 0), 9)), None, known),
        Sample("body", None, jpeg(cv2.resize(faces[0], (110, 120))), Labels((20.0, 29.0), None, "y")),
    ]
    for name, samples in (("train", originals), ("val", copies + poor)):
        (folder / name).mkdir()
        for number, first in enumerate(range(0, len(samples), 12)):
            write_shard(folder / name / f"{name}-{number}.tar", samples[first : first + 12])
        index_shards(folder / name)
    return folder


@pytest.fixture(scope="module")
def found(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("audit")
    return audit([folders / "train", folders / "val"], out / "out", out / "exclude.txt", options=OPTIONS)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_exactly_the_planted_copies_are_found(found):
    links = {(row["key_a"], row["key_b"]): row["kind"] for row in rows(found.out / "pairs.csv")}
    assert links == {(f"face{place:02d}", name): kind for name, place, _, kind, _, _ in COPIES}
    assert all(float(row["similarity"]) >= 0.9 for row in rows(found.out / "pairs.csv"))
    assert set(links.values()) == set(COPY_TYPES)


def test_contradictions_are_told_from_copies_with_one_label(found):
    by_name = {found.samples.key(group.members[1]): group for group in found.groups}
    assert {name for name, group in by_name.items() if group.differs} == {"quality", "smaller", "larger"}
    assert {name for name, group in by_name.items() if group.contradicts(5)} == {"smaller", "larger"}
    assert by_name["smaller"].age_gap == 22 and by_name["larger"].genders == 2 and by_name["cut"].genders == 1


def test_equal_blank_images_make_nobody_a_copy(faces, tmp_path):
    black = jpeg(np.zeros((120, 110, 3), np.uint8))
    young, old = Labels((20.0, 20.0), "M"), Labels((60.0, 60.0), "F")
    samples = [
        Sample("one", jpeg(faces[0]), black, young),
        Sample("other", jpeg(faces[1]), black, old),
        Sample("one_again", jpeg(faces[0]), None, young),
    ]
    write_shard(tmp_path / "part.tar", samples)
    index_shards(tmp_path)
    filler = audit([tmp_path], tmp_path / "out", tmp_path / "exclude.txt", options=OPTIONS)
    assert [(row["key_a"], row["key_b"]) for row in rows(filler.out / "pairs.csv")] == [("one", "one_again")]
    assert not any(group.differs for group in filler.groups)
    left_out = [line.split("\t")[0] for line in filler.fix.read_text().splitlines()]
    assert left_out == ["one", "other"], "the clean copy stays"


def test_poor_images_have_one_flag_each(found):
    flagged = {row["key"]: (row["flag"], row["reason"]) for row in rows(found.out / "flagged.csv")}
    flags = {name: flag for name, (flag, _) in flagged.items()}
    planted = {"cut_off": "unreadable", "one_colour": "blank", "black": "blank", "small": "tiny", "soft": "blurred"}
    assert flags == planted
    assert "unreadable JPEG" in flagged["cut_off"][1] and "20 px" in flagged["small"][1]


def test_the_list_leaves_out_copies_contradictions_and_what_cannot_be_seen(found):
    lines = dict(line.split("\t") for line in found.fix.read_text().splitlines())
    assert set(lines) == {
        *("bytes", "pixels", "quality", "cut", "darker", "grey", "watermark", "mirrored"),
        *("face03", "smaller", "face04", "larger", "cut_off", "one_colour", "black"),
    }
    assert lines["bytes"] == "copy of face00" and "age 30 to 52" in lines["smaller"] and "gender" in lines["face04"]
    assert len(lines) == len(found.excluded) == json.loads((found.out / "audit.json").read_text())["excluded"]


def test_the_folder_named_first_keeps_its_copy(folders, tmp_path):
    found = audit([folders / "val", folders / "train"], tmp_path / "out")
    excluded = {found.samples.key(number) for number, _ in found.excluded}
    assert {"face00", "face02", "face09"} <= excluded and not {"bytes", "quality", "mirrored"} & excluded
    assert found.fix is None


def test_within_a_folder_the_largest_and_then_the_sharpest_copy_stays(faces, tmp_path):
    known = Labels((30.0, 30.0))
    images = {
        "a_soft": cv2.GaussianBlur(faces[0], (0, 0), 1.5),
        "b_sharp": faces[0],
        "c_small": cv2.resize(faces[0], (88, 96), interpolation=cv2.INTER_AREA),
        "d_small": cv2.resize(faces[1], (88, 96), interpolation=cv2.INTER_AREA),
        "e_large": faces[1],
    }
    folder = tmp_path / "all"
    folder.mkdir()
    write_shard(folder / "all.tar", [Sample(key, jpeg(image), None, known) for key, image in images.items()])
    index_shards(folder)
    found = audit([folder], tmp_path / "out")
    assert {found.samples.key(number) for number, _ in found.excluded} == {"a_soft", "c_small", "d_small"}


def test_numbers_of_the_audit(found):
    numbers = json.loads((found.out / "audit.json").read_text())
    assert numbers["pairs"]["face"] == {"bytes": 1, "pixels": 1, "near": 7, "mirrored": 1}
    assert numbers["overlap"] == [[0, 10], [10, 0]]
    groups = numbers["groups"]
    assert (groups["groups"], groups["samples"], groups["across_folders"], groups["contradicting"]) == (10, 20, 10, 2)
    assert (groups["age_differs"], groups["age_differs_beyond_tolerance"], groups["gender_differs"]) == (2, 1, 1)
    assert numbers["flagged"] == {"unreadable": 1, "blank": 2, "tiny": 1, "blurred": 1}
    assert numbers["images"]["face"]["images"] == 45 and numbers["images"]["face"]["readable"] == 44
    assert numbers["images"]["body"]["images"] == 1
    assert [folder["samples"] for folder in numbers["folders"]] == [30, 16]


def test_the_screen_names_folders_that_share_copies_and_counts_the_others(folders, found, faces, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    write_shard(other / "x.tar", [Sample("alone", jpeg(faces[33]), None, Labels())])
    index_shards(other)
    lines = summary(audit([folders / "train", folders / "val", other], tmp_path / "out", options=OPTIONS)).splitlines()
    assert [line for line in lines if "with a copy" in line] == [
        f"samples of {folders}/val with a copy in {folders}/train: 10 of {len(found.samples.indexes[1])}"
    ]
    assert "pairs of folders without copies: 2 of 3" in lines


def test_the_number_of_processes_changes_nothing(folders, found, tmp_path):
    again = audit(
        [folders / "train", folders / "val"], tmp_path / "out", tmp_path / "exclude.txt", workers=2, options=OPTIONS
    )
    assert again.fix.read_text() == found.fix.read_text()
    for name in ("pairs.csv", "flagged.csv", "audit.json", "report.html"):
        assert (again.out / name).read_text() == (found.out / name).read_text()


def test_nothing_is_left_of_the_thumbnails(found):
    assert {path.name for path in found.out.iterdir()} == {"report.html", "audit.json", "pairs.csv", "flagged.csv"}


class Page(HTMLParser):
    """What a page loads and holds."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.open, self.images = [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.loaded += [values[name] for name in ("src", "href", "srcset", "data") if name in values]
        self.images += tag == "img"
        assert tag not in ("script", "iframe", "object")
        if tag not in ("img", "meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_in_itself(found):
    text = (found.out / "report.html").read_text()
    page = Page(text)
    assert page.open == [] and page.images == 2 * 10 + 4
    outside = [address for address in page.loaded if not address.startswith(("data:", "#"))]
    assert outside == ["audit.json", "pairs.csv", "flagged.csv"] and all(
        (found.out / name).is_file() for name in outside
    )
    assert not re.search(r"https?://|@import|url\(", text)
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text
    for words in (
        "22 years apart",
        "Contradicting copies <small>2<",
        "Copies in different folders <small>8<",
        "mirrored",
    ):
        assert words in text


def test_the_menu_and_where_it_comes_from(found):
    text = (found.out / "report.html").read_text()
    menu = re.findall(r'<a href="#([^"]+)">([^<]+)</a>', text[text.index("<nav>") : text.index("</nav>")])
    assert [title for _, title in menu] == re.findall(r"<h2>([^<]+?)(?: <small>\d+</small>)?</h2>", text)
    assert all(text.count(f'id="{anchor}"') == 1 for anchor, _ in menu)
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text))
    assert (
        facts["Date"] == "2023-11-14 22:13 UTC"
        and facts["Image size"] == "face 110 px, body 110 px (median of the shorter sides)"
    )
    assert facts["Data"].count(" samples, digest ") == 2 and {"Version", "Command"} < set(facts)


@pytest.mark.slow
@IN_A_BROWSER
def test_the_page_looks_right_in_a_browser(found, tmp_path):
    with Browser(tmp_path / "profile") as browser:
        for width, dark in product((390, 1280), (False, True)):
            browser.open(found.out / "report.html", width, 900, dark)
            assert browser.value(FITS) and browser.value(LOADED), (width, dark)
            assert browser.value(CONTRAST) >= 4.5, (width, dark)
            browser.screenshot(tmp_path / f"{width}{'_dark' if dark else ''}.png")
        assert browser.complaints == []


def test_names_from_the_data_cannot_become_markup(faces, tmp_path):
    folder = tmp_path / "a<b>&'"
    folder.mkdir()
    evil = Labels((30.0, 30.0), None, "<script>alert(1)</script>")
    write_shard(folder / "x.tar", [Sample(f'k"<img src=x>{number}', jpeg(faces[0]), None, evil) for number in range(2)])
    index_shards(folder)
    found = audit([folder], tmp_path / "out", options=OPTIONS)
    text = (found.out / "report.html").read_text()
    assert Page(text).images == 2 and "<script" not in text and "&lt;script&gt;" in text


def test_more_than_is_shown_is_counted(folders, tmp_path):
    found = audit([folders / "train", folders / "val"], tmp_path / "out", options=replace(OPTIONS, show=3))
    text = (found.out / "report.html").read_text()
    assert Page(text).images == 2 * 2 + 2 * 3 + 4 and "5 more in pairs.csv" in text


def test_data_without_copies_or_faces(tmp_path, faces):
    folder = tmp_path / "bodies"
    folder.mkdir()
    write_shard(
        folder / "x.tar", [Sample(f"b{number}", None, jpeg(face), Labels()) for number, face in enumerate(faces[:3])]
    )
    index_shards(folder)
    found = audit([folder], tmp_path / "out", tmp_path / "deep" / "exclude.txt")
    assert found.groups == [] and found.fix.read_text() == ""
    assert json.loads((found.out / "audit.json").read_text())["images"].keys() == {"body"}


@pytest.mark.slow
def test_fix_then_pack_without_them(faces, tmp_path, capsys):
    images = tmp_path / "UTKFace"
    images.mkdir()
    for number, face in enumerate(faces):
        (images / f"{20 + number}_0_1_2017{number:013d}.jpg.chip.jpg").write_bytes(jpeg(face))
    for number in range(6):  # near copies, whose labels agree but for the last two
        age = 20 + number + (20 if number > 3 else 0)
        (images / f"{age}_0_1_2018{number:013d}.jpg.chip.jpg").write_bytes(jpeg(faces[number], 60))
    before = pack(UTKFaceSource(images), tmp_path / "before", {"train": 0.7, "val": 0.3})
    splits = [str(tmp_path / "before" / name) for name in ("train", "val")]
    main(["audit", *splits, "--out", f"{tmp_path}/audit", "--fix", f"{tmp_path}/leave.txt", "--workers", "1"])
    assert "8 samples to leave out" in capsys.readouterr().out
    arguments = f"utkface --images {images} --split train=0.7,val=0.3 --exclude {tmp_path}/leave.txt"
    main(["pack", *arguments.split(), "--out", f"{tmp_path}/after"])
    assert "8 samples left out, of 8 names to leave out" in capsys.readouterr().out
    after = [ShardIndex.load(tmp_path / "after" / name) for name in ("train", "val")]
    assert sum(map(len, after)) == 46 - 8
    for index, name in zip(after, ("train", "val"), strict=True):
        kept = {index.key(number) for number in range(len(index))}
        assert kept <= {before.splits[name].key(number) for number in range(len(before.splits[name]))}
    assert audit([index.folder for index in after], tmp_path / "again").groups == []


def test_images_can_be_left_out_by_their_own_name(faces, tmp_path):
    images = tmp_path / "UTKFace"
    images.mkdir()
    names = [f"{20 + number}_0_1_2017{number:013d}.jpg" for number in range(8)]
    for name, face in zip(names, faces, strict=False):
        (images / name).write_bytes(jpeg(face))
    packed = pack(
        UTKFaceSource(images), tmp_path / "out", {"all": 1.0}, exclude={names[2], "24_0_1_20170000000000004", "x"}
    )
    keys = {packed.splits["all"].key(number) for number in range(6)}
    assert packed.excluded == 2 and len(packed.splits["all"]) == 6
    assert keys == {name.removesuffix(".jpg") for name in names} - {
        names[2].removesuffix(".jpg"),
        names[4].removesuffix(".jpg"),
    }


def test_a_data_set_packed_in_parts_leaves_out_the_same(faces, tmp_path):
    images = tmp_path / "UTKFace"
    images.mkdir()
    for number, face in enumerate(faces[:8]):
        (images / f"{20 + number}_0_1_2017{number:013d}.jpg").write_bytes(jpeg(face))
    source, exclude = UTKFaceSource(images), {"22_0_1_20170000000000002"}
    whole = pack(source, tmp_path / "whole", {"all": 1.0}, exclude=exclude)
    for number in (1, 2):
        packed = pack_worker_shard(source, tmp_path / "parts", {"all": 1.0}, WorkerShard(number, 2), exclude=exclude)
    assert packed.excluded == whole.excluded == 1
    assert packed.splits["all"].digest == whole.splits["all"].digest and len(packed.splits["all"]) == 7


def test_names_that_two_folders_share_are_warned_of(faces, tmp_path, capsys):
    for name, chosen in (("one", [0, 0, 1]), ("two", [2, 3, 4])):
        (tmp_path / name).mkdir()
        samples = [Sample(f"k{place}", jpeg(faces[face]), None, Labels()) for place, face in enumerate(chosen)]
        write_shard(tmp_path / name / "x.tar", samples)
        index_shards(tmp_path / name)
    arguments = [f"{tmp_path}/one", f"{tmp_path}/two", "--out", f"{tmp_path}/out", "--fix", f"{tmp_path}/leave.txt"]
    main(["audit", *arguments, "--workers", "1"])
    assert "warning: 1 of these names also belong to samples that should stay" in capsys.readouterr().out
    (line,) = (tmp_path / "leave.txt").read_text().splitlines()
    assert line.startswith(f"{tmp_path}/one/k1\t")
    names = read_exclusions(tmp_path / "leave.txt")
    assert [len(leave_out(ShardIndex.load(tmp_path / name), names)) for name in ("one", "two")] == [2, 3]
    assert [len(index_shards(tmp_path / name, exclude=names)) for name in ("one", "two")] == [2, 3]


@pytest.mark.parametrize(
    "words, message",
    [
        ("audit", "folders"),
        ("audit {tmp}/nowhere", "nowhere: no such folder"),
        ("audit {data}/train {data}/train", "given twice"),
        ("audit {data}/train https://a.invalid/b", "https://a.invalid/b: an audit reads every image; copy the shards"),
        ("audit {data}/train --distance 40", "--distance 40"),
        ("audit {data}/train --similarity 2", "--similarity 2"),
        ("audit {data}/train --min-side -1", "--min_side -1"),
        ("audit {data}/train --speed 2", "speed"),
        ("audit {data}/train --out {tmp}/a-file", "a-file: cannot be written"),
        ("audit {data}/train --out {tmp}/out --fix {tmp}/a-file/x.txt", "cannot be written"),
        ("pack people --count 3 --out {tmp}/out --exclude {tmp}/nothing.txt", "--exclude"),
        ("pack people --count 3 --out {tmp}/out --exclude {tmp}/binary", "--exclude"),
    ],
)
def test_what_a_user_gets_wrong_is_one_line_and_exit_code_2(folders, tmp_path, capsys, words, message):
    (tmp_path / "a-file").write_text("")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(SystemExit) as stopped:
        main([*words.format(tmp=tmp_path, data=folders).split()])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and message in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    "ages, index", [(range(23, 63), 100.0), ([30, 35, 40], 500.0), ([24, 26], 0.0), ([3, 90], None), ([np.nan], None)]
)
def test_whipple_index_of_ages(ages, index):
    ages = np.array(list(ages), dtype=np.float32)
    assert whipple(ages, ages) == index
