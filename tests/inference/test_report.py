"""The page of ``predict --report``: who is on it, in which order, and where its links lead."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image

from mivolo_lite.cli import main
from mivolo_lite.inference import report
from mivolo_lite.inference.sources import Item, find_items
from tests.inference.scenes import photo, rows

pytestmark = pytest.mark.usefixtures("red_faces")


class Figures(HTMLParser):
    """The figures of a page: where each leads, whether it has an image, and its words."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.figures: list[dict] = []
        self.is_open, self.text = False, page.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        if tag == "figure" and ("class", "image") in attributes:
            self.is_open = True
            self.figures.append({"words": "", "href": "", "image": False})
        elif self.is_open and tag == "a":
            self.figures[-1]["href"] = dict(attributes)["href"]
        elif self.is_open and tag == "img":
            self.figures[-1]["image"] = True

    def handle_endtag(self, tag):
        self.is_open = self.is_open and tag != "figure"

    def handle_data(self, data):
        if self.is_open:
            self.figures[-1]["words"] += data


@pytest.fixture
def photos(tmp_path):
    """Three people in two photos of awkward names, nobody in a third, and no image."""
    folder = tmp_path / "photos"
    (folder / "a b#c").mkdir(parents=True)
    Image.fromarray(photo((20, 30, 80), (200, 60, 64))).save(folder / "a b#c" / "100% & 'é'.png")
    Image.fromarray(photo((100, 90, 90), seed=1)).save(folder / "<b>.png")
    Image.fromarray(photo()).save(folder / "nobody.png")
    (folder / "bad.jpg").write_bytes(b"<html>no photo</html>")
    return folder


def predict(photos, checkpoint, out, *words):
    main(["predict", str(photos), "--checkpoint", checkpoint, "--out", str(out), *words])


def test_the_page_shows_everybody_by_age_and_leads_to_the_photos(photos, checkpoint, tmp_path, capsys):
    predict(photos, checkpoint, out := tmp_path / "out", "--report")
    assert "report.html" in capsys.readouterr().out
    page = Figures(out / "report.html")
    ages = sorted(round(row["age"]) for row in rows(out) if "age" in row)
    shown = [re.match(r"\s*(\d+) years?", figure["words"]) for figure in page.figures]
    assert [int(words[1]) for words in shown[:3]] == ages and shown[3] is None
    assert all(figure["image"] for figure in page.figures)
    linked = [(out / unquote(figure["href"])).resolve() for figure in page.figures]
    assert sorted(linked) == sorted((photos / row["source"].split("photos/")[1]).resolve() for row in rows(out))
    assert linked[3].name == "nobody.png"
    assert "bad.jpg" in page.text and "&lt;b&gt;.png" in page.text and "<b>.png" not in page.text


def test_of_many_people_as_many_are_shown_as_a_page_holds(photos, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "_MOST", 2)
    predict(photos, checkpoint, out := tmp_path / "out", "--report")
    page = Figures(out / "report.html")
    assert len(page.figures) == 2 + 1
    assert "One in 2 people is shown below; predictions.csv has all." in page.text
    assert re.search(r"<span>People</span><b>3</b>", page.text)


def test_a_photo_that_is_gone_is_said_to_be(photos, checkpoint, tmp_path):
    items, _ = find_items([str(photos)])
    predict(photos, checkpoint, out := tmp_path / "out")
    (photos / "<b>.png").unlink()
    report.write_report(out, items, {})
    page = Figures(out / "report.html")
    assert [figure["image"] for figure in page.figures].count(False) == 1
    assert "is gone" in page.text


def test_flags_and_people_without_an_age_are_shown_and_shards_are_not(photos, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    name = str(photos / "<b>.png")
    answers = {"age_lower": None, "age_upper": None, "gender": None, "gender_probability": None, "tasks": {}}
    person = {"source": name, "face": [100, 90, 190, 180], "body": None, "age": 31.0, **answers, "flags": ["blurred"]}
    nobody_cut = person | {"age": None, "flags": ["outside the photo"], "face": [9000, 9000, 9100, 9100]}
    lines = [person, nobody_cut, person | {"source": "shards/1"}]
    (out / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    track = {"source": "a.mp4", "track": 1, "first_frame": 0, "last_frame": 9, "frames": 9, "age": 8.2, "gender": None}
    (out / "tracks.jsonl").write_text(json.dumps(track | {"flags": []}) + "\n")
    report.write_report(out, [Item("image", name), Item("shards", "shards")], {})
    page = Figures(out / "report.html")
    assert ["".join(figure["words"].split()) for figure in page.figures] == [
        "31yearsblurred<b>.png", "noageoutsidethephoto<b>.png",
    ]  # fmt: skip
    assert "a.mp4 track 1, frames 0 to 9: 8 years" in page.text


def test_a_report_of_an_earlier_run_does_not_stay(photos, checkpoint, tmp_path):
    predict(photos, checkpoint, out := tmp_path / "out", "--report")
    predict(photos, checkpoint, out)
    assert not (out / "report.html").exists()
