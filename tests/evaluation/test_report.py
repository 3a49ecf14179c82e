"""The report: what is on it, that it needs nothing else, and that it looks right in a browser."""

import base64
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch

from mivolo_lite.cli import main
from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.evaluation.calibration.conformal import age_intervals, fit_calibration
from mivolo_lite.evaluation.plots import INK
from mivolo_lite.evaluation.report import Section, worst_rows, write_report
from mivolo_lite.evaluation.summary import summarise
from mivolo_lite.evaluation.table import metrics_table
from mivolo_lite.evaluation.thumbnails import thumbnails
from mivolo_lite.images.corruptions import CORRUPTIONS
from tests.evaluation.browser import FITS, IN_A_BROWSER, LOADED, Browser
from tests.evaluation.simulated import people
from tests.shards.tiny_shards import make_shards

PLOTS = {
    "predicted_true", "mae_by_age", "bias_by_age", "cs", "errors", "groups", "gender_confusion", "gender_reliability",
    "risk_coverage_age", "risk_coverage_gender", "interval_coverage",
    "threshold_13", "threshold_16", "threshold_18", "threshold_21",
}  # fmt: skip


def with_intervals(predictions):
    calibration = fit_calibration(predictions, 0.9, "age")
    lower, upper = age_intervals(calibration, predictions.age, predictions.gender, predictions.group)
    return replace(predictions, lower=lower, upper=upper)


@pytest.fixture(scope="module")
def everyone():
    return with_intervals(people(1500, unknown=0.05))


@pytest.fixture(scope="module")
def metrics(everyone):
    return summarise(everyone, level=0.9)


@pytest.fixture(scope="module")
def page(everyone, metrics, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_report([Section(None, metrics, everyone, ["data:,x"] * 24)], {"of": "a <model>"}, folder)
    return folder


def test_every_plot_is_in_the_page_and_beside_it(page):
    text = (page / "report.html").read_text()
    assert {path.stem for path in (page / "plots").iterdir()} == PLOTS
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (page / "plots").iterdir())
    assert text.count('<svg role="img"') == len(PLOTS)


def test_the_page_asks_for_nothing_else(page):
    text = (page / "report.html").read_text()
    assert re.findall(r'(?:src|href)="(?!data:|#)', text) == [] and "url(" not in text.replace("url(#", "")
    assert "<script" not in text and "@import" not in text


def test_names_inside_the_page_are_each_of_one_thing(page):
    names = re.findall(r'\bid="([^"]+)"', (page / "report.html").read_text())
    repeated = {name for name in names if names.count(name) > 1}
    # Matplotlib numbers its groups from 1 in each figure; nothing refers to those.
    assert [name for name in repeated if f"#{name}" in (page / "report.html").read_text()] == []


def test_plots_take_the_colour_of_the_text_around_them(page):
    text = (page / "report.html").read_text()
    drawings = text[text.index('class="plots"') : text.index('class="sheets"')].split("<figure>")[1:]
    assert len(drawings) == len(PLOTS)
    for svg in drawings:
        assert INK not in svg and "currentColor" in svg
        assert not re.search(r"(?:fill|stroke): ?(?:#000|#fff|black|white)", svg), svg[:100]


def test_it_opens_on_the_numbers_that_matter(page, metrics):
    text = (page / "report.html").read_text()
    tiles = text[text.index('class="tiles"') : text.index('class="plots"')]
    for number in (
        f"{metrics['mae']:.2f}", f"{metrics['cs5']:.1%}", f"{metrics['bias']:+.2f}", f"{metrics['baseline_mae']:.2f}",
        f"{metrics['macro_mae']['value']:.2f}", f"{metrics['macro_mae']['worst']['mae']:.2f}",
        f"{metrics['gender_accuracy']:.1%}", f"{metrics['gender']['ece']:.3f}",
        f"{metrics['age_intervals']['coverage']:.1%}", f"{metrics['gaps']['group']['standardised']['gap']:.2f}",
    ):  # fmt: skip
        assert number in tiles
    assert "a &lt;model&gt;" in text


@pytest.mark.slow
def test_the_same_evaluation_gives_the_same_page(page, metrics, everyone, tmp_path):
    write_report([Section(None, metrics, everyone, ["data:,x"] * 24)], {"of": "a <model>"}, tmp_path)
    assert (tmp_path / "report.html").read_bytes() == (page / "report.html").read_bytes()


@pytest.fixture
def no_plots(monkeypatch):
    """For what is not about them; all of them take seconds."""
    monkeypatch.setattr("mivolo_lite.evaluation.report.plots", lambda *_: [])


def test_few_images_have_no_figure(tmp_path, no_plots):
    few = people(29)
    found = summarise(few)
    write_report([Section(None, found, few)], {}, tmp_path)
    text = (tmp_path / "report.html").read_text()
    sheet = text[text.index("<h2>By gender</h2>") : text.index("<h2>NIST")]
    assert sheet.count("n &lt; 30") == 2 + len(found["by"]["group"]) and "." not in re.sub(r"<[^>]*>", "", sheet)
    assert found["gaps"] == {"gender": None, "group": None, "gender x group": None}


def test_too_few_ages_have_no_coverage_to_draw(everyone, tmp_path):
    few = with_intervals(people(20))
    write_report([Section(None, summarise(few, level=0.9), few)], {}, tmp_path)
    assert "cs.png" in os.listdir(tmp_path / "plots") and "interval_coverage.png" not in os.listdir(tmp_path / "plots")


@pytest.mark.parametrize("known", ["age", "gender", "nothing"])
def test_what_is_not_known_is_left_out(known, tmp_path):
    p, nothing = people(60), np.full(60, np.nan)
    if known != "age":
        p = replace(p, age_lo=nothing, age_hi=nothing)
    if known != "gender":
        p = replace(p, gender=[None] * 60)
    p = replace(p, group=[None] * 60, spread=None)
    found = summarise(p)
    write_report([Section(None, found, p, thumbnails(None, worst_rows(p, 0), ("face",)))], {}, tmp_path)
    plotted = {path.stem for path in (tmp_path / "plots").iterdir()}
    assert ("cs" in plotted) == (known == "age") and ("gender_confusion" in plotted) == (known == "gender")
    json.dumps(found, allow_nan=False)


@pytest.mark.slow
def test_hostile_names_stay_words(tmp_path):
    bad = "<script>alert(1)</script>"
    p = people(200)
    p = replace(p, group=[bad if name == "a" else name for name in p.group], key=[f"{bad}{key}" for key in p.key])
    write_report([Section(None, summarise(p), p, [""] * 24)], {bad: bad}, tmp_path)
    assert "<script" not in (tmp_path / "report.html").read_text()


def test_the_worst_images_are_those_of_the_largest_errors(tmp_path, no_plots):
    index = make_shards(tmp_path / "shards", [40])
    known = ~np.isnan(index.columns["age_lo"])
    p = people(40)
    p = replace(p, age=index.columns["age_hi"] + np.arange(40.0), age_lo=index.columns["age_lo"],
                age_hi=index.columns["age_hi"], key=[index.key(row) for row in range(40)])  # fmt: skip
    rows = worst_rows(p, 10)
    assert rows.tolist() == np.flatnonzero(known)[::-1][:10].tolist()
    faces = thumbnails(index, rows, ("face", "body"))
    assert [bool(face) for face in thumbnails(index, rows, ("face",))] == [row % 3 != 1 for row in rows]
    write_report([Section(None, summarise(p), p, faces)], {}, tmp_path)
    text = (tmp_path / "report.html").read_text()
    shown = re.findall(r"<b>(\d+)</b> for ([\d-]+)<br>(\w+)", text)
    assert [key for *_, key in shown] == [index.key(row) for row in rows]
    assert [truth for _, truth, _ in shown] == [p.true_age(row).replace(";", "-") for row in rows]
    pixels = simplejpeg.decode_jpeg(base64.b64decode(faces[0].partition(",")[2]))
    assert pixels.shape == (128, 128, 3) and pixels.std() > 5


IMAGES = 2 * (24 + 1 + 3 * len(CORRUPTIONS))
"""Of ``evaluated``, in two sections: the worst ones, and one as it is and made worse in all ways."""


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A report of a model of two inputs, calibrated, shown faces and both, and a matrix of two data sets."""
    folder = tmp_path_factory.mktemp("evaluated")
    index = make_shards(folder / "shards", [150])
    torch.manual_seed(0)
    model = {"name": "dual", "face": "test_resnet", "body": "test_vit", "dim": 16}
    Estimator(Card(model, {"name": "classification"}, {"min_age": 0, "max_age": 100}, 32)).save(folder / "best")
    words = ["--checkpoint", f"{folder}/best", "--data", f"{index.folder}", "--workers", "0"]
    main(["calibrate", *words])
    main(["evaluate", *words, "--out", f"{folder}/out", "--inputs", "face,both",
          "--robustness", "yes", "--robustness-samples", "12"])  # fmt: skip
    words.insert(4, f"{make_shards(folder / 'others', [40]).folder}")
    main(["evaluate", *words, "--out", f"{folder}/out/matrix", "--report", "no"])
    return folder / "out"


@pytest.mark.slow
def test_evaluate_writes_a_section_for_each_input(evaluated):
    text = (evaluated / "report.html").read_text()
    assert 'href="#face"' in text and 'id="both"' in text and 'id="body"' not in text
    assert text.count("<img") == IMAGES and "the same images, so its coverage is no evidence" in text
    names = {path.stem for path in (evaluated / "plots").iterdir()}
    assert {"mae_by_age_face", "mae_by_age_both", "interval_coverage_both"} <= names
    assert {f"robustness_{kind.lower().replace(' ', '_')}_both" for kind in CORRUPTIONS} <= names
    for section in json.loads((evaluated / "metrics.json").read_text())["inputs"].values():
        robustness = section["robustness"]
        tiles, _, rest = text.partition('class="plots"')
        assert f"<b>{robustness['mean_relative_degradation']:+.0%}</b>" in text and "Worse on bad images" in tiles
        assert f"{robustness['clean_mae']:.2f} [" in rest
        assert all(f"<td>{mae:.2f}</td>" in rest for row in robustness["mae"].values() for mae in row)


def test_age_groups_have_tiles_and_a_table(tmp_path, no_plots):
    p = people(300)
    lo = np.where(p.age_lo < 60, p.age_lo // 20 * 20, 60)
    p = replace(p, age_lo=lo, age_hi=np.where(lo < 60, lo + 19, 100))
    found = summarise(p)
    write_report([Section(None, found, p)], {}, tmp_path)
    text, classes = (tmp_path / "report.html").read_text(), found["classes"]
    assert f"<b>{classes['accuracy']:.1%}</b>" in text and f"<b>{classes['one_off']:.1%}</b>" in text
    sheet = text[text.index("<h2>By age group</h2>") :]
    for name, row in classes["by"].items():
        assert (
            f"<td>{name}</td><td>{row['n']}</td><td>{row['accuracy']:.1%}" in sheet
            and f"{row['distance']:.2f}" in sheet
        )
    assert f"age group right for {classes['accuracy']:.1%} of 300" in metrics_table(found)


SAMPLED = "[...document.querySelectorAll('figure svg')].every(svg => svg.getBoundingClientRect().height > 100)"
CONTRAST = """(() => {
  const light = colour => { const [r, g, b] = colour.match(/[\\d.]+/g).map(Number); return .299*r + .587*g + .114*b };
  const ground = light(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll('p, b, td, svg text')].map(e => {
    const style = getComputedStyle(e);
    return Math.abs(light(e.closest('svg') ? style.fill : style.color) - ground);
  }).reduce((a, b) => Math.min(a, b));
})()"""


@pytest.mark.slow
@IN_A_BROWSER
def test_it_looks_right_in_a_browser(evaluated, tmp_path):
    with Browser(tmp_path / "profile") as browser:
        pages = {"report.html": (IMAGES, 50_000), "matrix/report.html": (0, 5_000)}
        for (page, (images, size)), width, dark in product(pages.items(), (390, 1280), (False, True)):
            browser.open(evaluated / page, width, 900, dark)
            where = f"{page}, {width} px, {'dark' if dark else 'light'}"
            assert browser.value("innerWidth") == width, where
            assert browser.value(FITS) and browser.value(LOADED) and browser.value(SAMPLED), where
            assert browser.value("document.images.length") == images, where
            assert browser.value(CONTRAST) > 80, where
            ground = browser.value("getComputedStyle(document.body).backgroundColor")
            assert (ground == "rgb(255, 255, 255)") != dark, where
            browser.screenshot(tmp_path / "page.png")
            assert (tmp_path / "page.png").stat().st_size > size, where
        assert browser.complaints == []


@pytest.mark.slow
@IN_A_BROWSER
def test_the_browser_of_these_tests_notices_what_is_wrong(tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text('<meta name="viewport" content="width=device-width"><div style="width:2000px">x</div>'
                   '<img src="data:image/png;base64,AAAA"><script>console.error("no"); missing()</script>')  # fmt: skip
    with Browser(tmp_path / "profile") as browser:
        browser.open(bad, 1280, 900, False)
        assert not browser.value(FITS) and not browser.value(LOADED) and len(browser.complaints) >= 2


@pytest.mark.slow
def test_a_hundred_thousand_predictions_take_little_time_and_memory(tmp_path):
    program = """
import sys, time
from pathlib import Path
from mivolo_lite.evaluation.predictions import write_csv
from mivolo_lite.evaluation.report import Section, write_report
from mivolo_lite.evaluation.summary import summarise
from tests.evaluation.test_report import people, with_intervals
everyone, out = with_intervals(people(100_000)), Path(sys.argv[1])
start = time.process_time()
metrics = summarise(everyone, level=0.9)
write_csv({None: everyone}, out / "predictions.csv")
write_report([Section(None, metrics, everyone)], {}, out)
# getrusage's peak would be that of the process that this one was forked from, where that is larger.
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(time.process_time() - start, peak)
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path], cwd=Path(__file__).parents[2],
                          capture_output=True, text=True, timeout=580)  # fmt: skip
    assert done.returncode == 0, done.stderr
    seconds, kilobytes = map(float, done.stdout.split())
    assert seconds < 60 and kilobytes < 1e6, f"{seconds:.1f} s of one CPU, {kilobytes / 1e6:.2f} GB"
