"""A table of labels without boxes gets them, and what cannot have one is named."""

import csv
import json

import pytest
from PIL import Image

from mivolo_lite.cli import main
from mivolo_lite.errors import UserError
from mivolo_lite.inference import detect
from mivolo_lite.inference.find_faces import by_prominence
from mivolo_lite.packing.sources.csv import CsvSource
from mivolo_lite.shards.index import ShardIndex
from tests.inference.scenes import RedSquares, photo

LABELS = "file;age;who\none.png;31;ann\nnobody.png;40;bob\ntwo.png;7;eve\ntext.jpg;8;-\ntwice.png;1;-\ntwice.png;60;-\n"


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """One person, two, nobody, no image, in a folder; red squares are the faces."""
    monkeypatch.setattr(detect, "open_detector", lambda *_: detect.FaceDetector(RedSquares()))
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, squares in {"one": [(100, 90, 90)], "two": [(10, 10, 40), (120, 60, 80)], "nobody": []}.items():
        Image.fromarray(photo(*squares)).save(folder / f"{name}.png")
    Image.fromarray(photo((100, 90, 90))).save(folder / "twice.png")
    (folder / "text.jpg").write_text("no photo")
    (tmp_path / "labels.csv").write_text(LABELS)
    return folder


def find_faces(tmp_path, *words):
    folders = ["--images", f"{tmp_path}/photos", "--csv", f"{tmp_path}/labels.csv", "--out", f"{tmp_path}/found"]
    main(["find-faces", *folders, *words])
    with open(tmp_path / "found" / "labels.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_labels_go_to_the_main_face_and_what_has_none_is_named(photos, tmp_path, capsys):
    one, two, other = find_faces(tmp_path)
    assert one == dict(file="one.png", age="31", who="ann", face_x0="100.0", face_y0="90.0", face_x1="190.0",
                       face_y1="180.0")  # fmt: skip
    assert (two["age"], two["face_x0"]) == ("7", "120.0")
    assert (other["file"], other["age"], other["who"], other["face_x0"]) == ("two.png", "", "", "10.0")
    rejected = map(json.loads, (tmp_path / "found" / "rejected.jsonl").read_text().splitlines())
    reasons = {line["image"]: line["reason"] for line in rejected}
    assert reasons.keys() == {"nobody.png", "text.jpg", "twice.png"}
    assert reasons["nobody.png"] == "no face found" and reasons["twice.png"].startswith("2 rows name it")
    printed = capsys.readouterr().out
    assert "2 photos with a face" in printed and "1 of them show several" in printed and "3 photos left out" in printed


def test_a_name_is_printed_in_one_line_that_moves_no_cursor(photos, tmp_path, capsys):
    (tmp_path / "labels.csv").write_text('file,age\n"no\nwhere\x1b[2J.png",7\none.png,31\n')
    find_faces(tmp_path)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("1 photo with a face: ") and printed[1].startswith("1 photo left out, ")
    assert len(printed) == 2 and "the first is no where\\x1b[2J.png: cannot be read" in printed[1]


def test_the_table_itself_is_not_replaced(photos, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["find-faces", "--images", str(photos), "--csv", f"{tmp_path}/labels.csv", "--out", str(tmp_path)])
    assert "labels.csv is there, and its results would replace it" in capsys.readouterr().err
    assert (tmp_path / "labels.csv").read_text() == LABELS


def test_the_table_is_packed_as_faces(photos, tmp_path):
    find_faces(tmp_path)
    main(["pack", "csv", "--images", str(photos), "--csv", f"{tmp_path}/found/labels.csv", "--face-square", "1",
          "--split", "train=1.0", "--out", f"{tmp_path}/packed"])  # fmt: skip
    index = ShardIndex.load(tmp_path / "packed" / "train")
    assert len(index) == 2 and index.info["labels"]["age"]["known"] == 2


def test_what_a_user_gets_wrong(photos, tmp_path):
    with pytest.raises(SystemExit) as ended:
        find_faces(tmp_path, "--path", "nonsense")
    assert ended.value.code == 2
    find_faces(tmp_path)
    (tmp_path / "found" / "labels.csv").rename(tmp_path / "labels.csv")
    with pytest.raises(SystemExit):
        find_faces(tmp_path)
    (tmp_path / "labels.csv").write_text("file,age\nnobody.png,3\n")
    with pytest.raises(SystemExit):
        find_faces(tmp_path)
    assert not (tmp_path / "found" / "labels.csv").exists()


@pytest.mark.parametrize("reason, code", [(KeyboardInterrupt(), 130), (OSError(5, "Input/output error"), 1)])
def test_whatever_ends_it_the_same_command_resumes(reason, code, photos, tmp_path, monkeypatch, capsys):
    def find_or_end(self, image):
        looked.append(image)
        if len(looked) == 3:
            raise reason
        return find(self, image)

    find, looked = RedSquares.__call__, []
    (tmp_path / "labels.csv").write_text(LABELS.replace("text.jpg;8;-\n", "") + "third.png;9;-\n")
    Image.fromarray(photo((50, 60, 70))).save(photos / "third.png")
    monkeypatch.setattr(RedSquares, "__call__", find_or_end)
    with pytest.raises(SystemExit) as ended:
        find_faces(tmp_path)
    printed = capsys.readouterr()
    assert ended.value.code == code and "2 of 4 items are done, and the same command resumes\n" in printed.err
    assert "1 photo with a face" in printed.out and "2 photos left out" in printed.out
    resumed = find_faces(tmp_path)
    assert "note: resumes: 2 of 4 items were done before\n" in capsys.readouterr().err
    assert len(looked) == 5 and len(list((tmp_path / "found").iterdir())) == 2
    assert find_faces(tmp_path) == resumed and len(looked) == 9


def test_partial_results_of_predict_are_not_taken_for_its_own(photos, tmp_path, capsys):
    folder = tmp_path / "found" / "unfinished"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text('{"command": "predict"}')
    assert len(find_faces(tmp_path)) == 3
    assert "note: begins anew: the unfinished run there had another command\n" in capsys.readouterr().err


def test_whole_images_have_no_square(photos, tmp_path):
    with pytest.raises(UserError, match="find-faces"):
        CsvSource(photos, tmp_path / "labels.csv", face_square=0.95)


def test_a_large_face_aside_yields_to_one_in_the_middle_unless_it_is_much_larger():
    middle, aside, large = (140, 110, 160, 130), (0, 0, 25, 25), (0, 0, 120, 120)
    assert by_prominence([aside, middle], 300, 240)[0] == middle
    assert by_prominence([middle, large], 300, 240)[0] == large
