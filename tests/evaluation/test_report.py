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
from matplotlib.figure import Figure

from mivolo_lite import __version__
from mivolo_lite.cli import main
from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.evaluation.headline import Measure, between, figure, headline, worst_subgroup
from mivolo_lite.evaluation.metric_names import HIGHER, LOWER
from mivolo_lite.evaluation.plots import (
    _hexbin,
    age_plots,
    confidence_plots,
    curves,
    gender_plots,
    subgroup_plots,
    threshold_plots,
)
from mivolo_lite.evaluation.report import write_report
from mivolo_lite.evaluation.report_sections import Result, worst_rows
from mivolo_lite.evaluation.summary import summarise
from mivolo_lite.evaluation.table import metrics_table
from mivolo_lite.evaluation.thumbnails import thumbnails
from mivolo_lite.images.corruptions import CORRUPTIONS
from mivolo_lite.reporting.page import Cell, Page, Part, Section, Table, Tables
from mivolo_lite.reporting.plot_folder import LIST, clear_plots, save_plots
from mivolo_lite.reporting.plots import INK, REFERENCE, Plot
from tests.evaluation.browser import (
    CONTRAST,
    FITS,
    HEIGHT,
    IN_A_BROWSER,
    LOADED,
    PLOTS_SHOWN,
    SMALLEST_LETTERS,
    Browser,
)
from tests.evaluation.simulated import people, with_intervals
from tests.shards.tiny_shards import make_shards

PLOTS = {
    "predicted_true", "mae_by_age", "bias_by_age", "cs", "errors", "groups", "gender_confusion", "gender_reliability",
    "risk_coverage_age", "risk_coverage_gender", "interval_coverage",
    "threshold_13", "threshold_16", "threshold_18", "threshold_21",
}  # fmt: skip


FILES = ("metrics.json", "predictions.csv")


@pytest.fixture(scope="module")
def everyone():
    return with_intervals(people(1500, unknown=0.05))


@pytest.fixture(scope="module")
def metrics(everyone):
    return summarise(everyone, level=0.9)


@pytest.fixture(scope="module")
def page(everyone, metrics, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    (folder / "plots").mkdir()
    (folder / "plots" / "of_an_earlier_run.png").write_bytes(b"")
    (folder / "plots" / LIST).write_text("of_an_earlier_run.png")
    for name in FILES:
        (folder / name).write_text("")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        patch.setattr(sys, "argv", ["/somewhere/mivolo-lite", "evaluate", "--data", "https://me:secret@host/a b"])
        write_report([Result(None, metrics, everyone, ["data:,x"] * 24)], {"Checkpoint": "a <model>"}, folder, FILES)
    return folder


def test_every_plot_is_in_the_page_and_beside_it(page):
    text = (page / "report.html").read_text()
    assert {path.stem for path in (page / "plots").glob("[!.]*")} == PLOTS
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (page / "plots").glob("[!.]*"))
    assert text.count('<svg role="img"') == len(PLOTS)


def test_plots_of_an_earlier_command_go_and_files_of_a_user_stay(tmp_path):
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "holiday.png").write_bytes(b"")
    save_plots([Plot("first", "", lambda axes: None), Plot("second", "", lambda axes: None)], tmp_path)
    save_plots([Plot("third", "", lambda axes: None)], tmp_path)
    assert {path.name for path in (tmp_path / "plots").glob("[!.]*")} == {"holiday.png", "third.png"}
    clear_plots(tmp_path)
    assert os.listdir(tmp_path / "plots") == ["holiday.png"]


def test_the_page_asks_for_nothing_else(page):
    text = (page / "report.html").read_text()
    assert re.findall(r'(?:src|href)="(?!data:|#)([^"]*)', text) == list(FILES) and "url(" not in text.replace(
        "url(#", ""
    )
    assert "<script" not in text and "@import" not in text


def test_names_inside_the_page_are_each_of_one_thing(page):
    names = re.findall(r'\bid="([^"]+)"', (page / "report.html").read_text())
    repeated = {name for name in names if names.count(name) > 1}
    # Matplotlib numbers its groups from 1 in each figure; nothing refers to those.
    assert [name for name in repeated if f"#{name}" in (page / "report.html").read_text()] == []


def test_plots_take_the_colour_of_the_text_around_them(page):
    text = (page / "report.html").read_text()
    drawings = re.findall("<svg .*?</svg>", text, re.DOTALL)
    assert len(drawings) == len(PLOTS)
    for svg in drawings:
        assert INK not in svg and "currentColor" in svg
        assert not re.search(r"(?:fill|stroke): ?(?:#000|#fff|black|white)", svg), svg[:100]


def test_the_menu_leads_to_every_section(page):
    text = (page / "report.html").read_text()
    menu = re.findall(r'<a href="#([^"]+)">([^<]+)</a>', text[text.index("<nav>") : text.index("</nav>")])
    assert [title for _, title in menu] == re.findall(r"<h2>([^<]+?)(?: <small>\d+</small>)?</h2>", text)
    assert all(text.count(f'id="{anchor}"') == 1 for anchor, _ in menu) and len(menu) > 8


def test_it_says_where_it_comes_from(page):
    text = (page / "report.html").read_text()
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text))
    assert facts["Date"] == "2023-11-14 22:13 UTC" and facts["Version"] == f"mivolo_lite {__version__}"
    assert (
        re.sub("<[^>]*>", "", facts["Command"]).strip() == "mivolo-lite evaluate --data &#39;https://***@host/a b&#39;"
    )
    assert facts["Checkpoint"] == "a &lt;model&gt;"
    assert re.findall(r'href="([^"]*)"', facts["Files"]) == list(FILES) and all(
        (page / name).exists() for name in FILES
    )


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
    assert tiles.count('class="tile"') == tiles.count(" is best") + tiles.count("is better")


@pytest.mark.slow
def test_the_worst_subgroup_is_age_adjusted(everyone):
    # Group a has most of the young, who are easy: by the raw MAE it would be the best treated.
    share = np.where(everyone.age_lo < 20, 0.95, 0.1)
    group = np.where(np.random.default_rng(0).random(len(share)) < share, "a", "b")
    worse = np.where(group == "a", 1.2, 1.0)
    p = replace(everyone, group=group.tolist(), age=everyone.age_lo + worse * (everyone.age - everyone.age_lo))
    p = replace(p, gender=[None] * len(group))
    gap = summarise(p)["gaps"]["group"]
    name, row = worst_subgroup(gap)
    assert name == "a" != gap["worst"]["name"]
    measure = next(measure for measure in headline(summarise(p)) if measure.name == "Worst group")
    assert (measure.value, measure.of) == (f"{row['standardised']:.2f}", "a") and "age-adjusted" in measure.note


@pytest.mark.slow
def test_the_colours_of_few_images_are_labelled_with_plain_numbers():
    figure = Figure()
    _hexbin(figure.subplots(), people(40))
    figure.draw_without_rendering()
    colours = figure.axes[1].yaxis
    assert [label.get_text() for label in colours.get_minorticklabels()] == []
    labels = [label.get_text() for label in colours.get_majorticklabels()]
    assert labels and labels == ["1", "2", "5", "10", "20"][: len(labels)]


def test_one_age_bin_has_no_mean_over_bins():
    p = people(200)
    p = replace(p, age_lo=p.age_lo * 0 + 25, age_hi=p.age_hi * 0 + 25)
    names = [measure.name for measure in headline(summarise(p))]
    assert "MAE, years" in names and not {"Macro-MAE, years", "Worst age bin"} & set(names)


def test_measures_say_what_their_figures_are():
    metrics = summarise(with_intervals(people(300)), level=0.9)
    macro, coverage = metrics["macro_mae"], metrics["age_intervals"]
    worst, gap = macro["worst"], metrics["gaps"]["group"]["standardised"]
    name, subgroup = worst_subgroup(metrics["gaps"]["gender x group"])
    interval = between(metrics["gaps"]["gender x group"]["standardised"]["worst_interval"])
    adjusted, chance = (
        f"{subgroup['standardised']:.2f}",
        f"age-adjusted; sampling alone gives up to {gap['by_chance']:.2f}",
    )
    share, width = f"{coverage['coverage']:.1%}", f"{coverage['width']:.1f} years wide"
    assert list(headline(metrics))[4:9] == [
        Measure(
            "Macro-MAE, years", LOWER, f"{macro['value']:.2f}", between(macro["interval"]), "", "mean over 4 age bins"
        ),
        Measure("Worst age bin", LOWER, f"{worst['mae']:.2f}", between(worst["interval"]), "40-49", "MAE, n=34"),
        Measure("Interval coverage", "nearest 90% is best", share, between(coverage["interval"], ".1%"), "", width),
        Measure("Worst gender x group", LOWER, adjusted, interval, name, f"age-adjusted MAE, n={subgroup['n']}"),
        Measure("Gap between groups, years", LOWER, f"{gap['gap']:.2f}", between(gap["interval"]), "", chance),
    ]


def test_what_is_rare_is_not_shown_as_never_and_a_level_not_as_another():
    age = np.array([30.0] * 299 + [60.0])
    p = replace(with_intervals(people(300)), age=np.full(300, 30.0), age_lo=age, age_hi=age)
    measures = {measure.name: measure for measure in headline(summarise(p, level=0.975))}
    gross = measures["Errors of 20 years or more"]
    assert (gross.value, gross.interval) == ("0.3%", "[0.0%, 1.8%]")
    assert measures["Interval coverage"].better == "nearest 97.5% is best"


def test_the_worst_subgroup_of_people_of_no_common_age_is_that_of_the_plain_mae():
    p = people(300)
    age = np.where(np.array(p.group) == "a", 25.0, 45.0)
    metrics = summarise(replace(p, age_lo=age, age_hi=age, gender=[None] * 300))
    worst = metrics["gaps"]["group"]["worst"]
    interval = between(metrics["gaps"]["group"]["raw"]["worst_interval"])
    measure = next(measure for measure in headline(metrics) if measure.name == "Worst group")
    assert measure == Measure(
        "Worst group", LOWER, f"{worst['mae']:.2f}", interval, worst["name"], f"MAE, n={worst['n']}"
    )


def test_measures_of_pairs_and_of_what_is_missing():
    verification = {"recognition": {"pairs": 8, "people": 4, "auc": 0.9125, "accuracy": 0.875}, "nobody_twice": None}
    counts = {"missing": 2, "unreadable": {"n": 3, "first": []}}
    of_pairs = "of 8 pairs of 4 identities; AUC 0.912; chance is 50 %"
    assert list(headline(summarise(people(40)) | {"verification": verification} | counts))[-3:] == [
        Measure("Verification accuracy, recognition", HIGHER, "87.5%", note=of_pairs),
        Measure("Samples left out", "", "2", note="they have no such image"),
        Measure("Unreadable images", "", "3", note="they cannot be decoded"),
    ]
    assert figure(0.5, [0.25, 0.75], ".0%") == Cell("50%", "[25%, 75%]") and figure(None, None) == Cell("")


def holds_data(plot):
    """Whether anything is plotted on its axes that is not a line to compare with."""
    for line in plot.figure.axes[0].lines:
        if line.get_gid() != REFERENCE and np.isfinite(np.asarray(line.get_ydata(), float)).any():
            return True
    collections = plot.figure.axes[0].collections
    return any(np.isfinite(np.ma.filled(np.ma.asarray(c.get_array(), float), np.nan)).any() for c in collections
               if c.get_array() is not None) or bool(plot.figure.axes[0].patches)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("n", [15, 40, 400])
def test_no_plot_is_empty(n):
    p = with_intervals(people(n, unknown=0.1))
    metrics = summarise(p, level=0.9)
    plots = [
        *age_plots(metrics, p), *subgroup_plots(metrics["gaps"]["gender x group"]), *gender_plots(metrics["gender"]),
        *confidence_plots(metrics), *threshold_plots(metrics["thresholds"]),
    ]  # fmt: skip
    assert [plot.name for plot in plots if not holds_data(plot)] == []
    assert ("mae_by_age" in {plot.name for plot in plots}) == (n == 400)
    assert not any(plot.figure.axes[0].get_legend() for plot in plots)  # it could cover what is plotted


@pytest.mark.slow
@pytest.mark.parametrize("form, magic", [("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_plots_are_files_for_a_paper_on_request(form, magic, metrics, everyone, tmp_path, monkeypatch):
    monkeypatch.setattr("mivolo_lite.evaluation.report_sections.age_plots", lambda *_: list(curves({"": metrics})))
    for kind in ("subgroup", "gender", "confidence", "threshold"):
        monkeypatch.setattr(f"mivolo_lite.evaluation.report_sections.{kind}_plots", lambda *_: [])
    write_report([Result(None, metrics, everyone)], {}, tmp_path, form="png")
    write_report([Result(None, metrics, everyone)], {}, tmp_path, form=form)
    names = {f"{name}.{form}" for name in ("mae_by_age", "bias_by_age", "cs")}
    assert {path.name for path in (tmp_path / "plots").glob("[!.]*")} == names
    assert all((tmp_path / "plots" / name).read_bytes().startswith(magic) for name in names)


@pytest.mark.slow
def test_the_same_evaluation_gives_the_same_page(page, metrics, everyone, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.setattr(sys, "argv", ["mivolo-lite", "evaluate", "--data", "https://me:secret@host/a b"])
    write_report([Result(None, metrics, everyone, ["data:,x"] * 24)], {"Checkpoint": "a <model>"}, tmp_path, FILES)
    assert (tmp_path / "report.html").read_bytes() == (page / "report.html").read_bytes()


@pytest.fixture
def no_plots(monkeypatch):
    """For what is not about them; all of them take seconds."""
    for kind in ("age", "subgroup", "gender", "confidence", "threshold"):
        monkeypatch.setattr(f"mivolo_lite.evaluation.report_sections.{kind}_plots", lambda *_: [])


def test_few_images_have_no_figure(tmp_path, no_plots):
    few = people(29)
    found = summarise(few)
    write_report([Result(None, found, few)], {}, tmp_path)
    text = (tmp_path / "report.html").read_text()
    sheet = text[text.index("<h3>By gender</h3>") : text.index("<h2>NIST")]
    assert sheet.count("n &lt; 30") == 2 + len(found["by"]["group"]) and "." not in re.sub(r"<[^>]*>", "", sheet)
    assert found["gaps"] == {"gender": None, "group": None, "gender x group": None}


@pytest.mark.slow
def test_too_few_ages_have_no_coverage_to_draw(everyone, tmp_path):
    few = with_intervals(people(20))
    write_report([Result(None, summarise(few, level=0.9), few)], {}, tmp_path)
    assert "cs.png" in os.listdir(tmp_path / "plots") and "interval_coverage.png" not in os.listdir(tmp_path / "plots")


@pytest.mark.slow
@pytest.mark.parametrize("known", ["age", "gender", "nothing"])
def test_what_is_not_known_is_left_out(known, tmp_path):
    p, nothing = people(60), np.full(60, np.nan)
    if known != "age":
        p = replace(p, age_lo=nothing, age_hi=nothing)
    if known != "gender":
        p = replace(p, gender=[None] * 60)
    p = replace(p, group=[None] * 60, spread=None)
    found = summarise(p)
    write_report([Result(None, found, p, thumbnails(None, worst_rows(p, 0), ("face",)))], {}, tmp_path)
    plotted = {path.stem for path in (tmp_path / "plots").glob("[!.]*")}
    assert ("cs" in plotted) == (known == "age") and ("gender_confusion" in plotted) == (known == "gender")
    json.dumps(found, allow_nan=False)


@pytest.mark.slow
def test_hostile_names_stay_words(tmp_path, monkeypatch):
    for kind in ("age", "gender", "confidence", "threshold"):  # no name is in these plots
        monkeypatch.setattr(f"mivolo_lite.evaluation.report_sections.{kind}_plots", lambda *_: [])
    bad = "<script>alert(1)</script> $\\frac{$"  # nor formulas
    p = people(200)
    p = replace(p, group=[bad if name == "a" else name for name in p.group], key=[f"{bad}{key}" for key in p.key])
    write_report([Result(None, summarise(p), p, [""] * 24)], {bad: bad}, tmp_path)
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
    write_report([Result(None, summarise(p), p, faces)], {}, tmp_path)
    text = (tmp_path / "report.html").read_text()
    shown = re.findall(r'estimated (\d+), true ([\d.]+(?: to [\d.]+)?) <small title="(\w+)">', text)
    assert [key for *_, key in shown] == [index.key(row) for row in rows]
    assert [truth for _, truth, _ in shown] == [p.true_age(row).replace(";", " to ") for row in rows]
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
          "--robustness", "yes", "--robustness-samples", "60"])  # fmt: skip
    words.insert(4, f"{make_shards(folder / 'others', [40]).folder}")
    main(["evaluate", *words, "--out", f"{folder}/out/matrix", "--report", "no"])
    return folder / "out"


@pytest.mark.slow
def test_evaluate_writes_a_section_for_each_input(evaluated):
    text = (evaluated / "report.html").read_text()
    assert 'href="#input-face"' in text and 'id="input-both"' in text and 'id="input-body"' not in text
    assert text.count("<img") == IMAGES and "the same images, so the interval coverage is no evidence" in text
    names = {path.stem for path in (evaluated / "plots").glob("[!.]*")}
    assert {"mae_by_age_face", "mae_by_age_both", "interval_coverage_both"} <= names
    assert {f"robustness_{kind.lower().replace(' ', '_')}_both" for kind in CORRUPTIONS} <= names
    for section in json.loads((evaluated / "metrics.json").read_text())["inputs"].values():
        robustness = section["robustness"]
        summary, _, rest = text.partition('class="plots"')
        assert f"<td>{robustness['mean_relative_degradation']:+.0%} <small>" in summary
        assert f"<td>{section['mae']:.2f} <small>" in summary and "lower is better" in summary
        assert f"{robustness['clean_mae']:.2f} [" in rest
        assert all(f"<td>{mae:.2f}</td>" in rest for row in robustness["mae"].values() for mae in row)


@pytest.mark.slow
def test_age_groups_have_tiles_and_a_table(tmp_path, no_plots):
    p = people(300)
    lo = np.where(p.age_lo < 60, p.age_lo // 20 * 20, 60)
    p = replace(p, age_lo=lo, age_hi=np.where(lo < 60, lo + 19, 100))
    found = summarise(p)
    write_report([Result(None, found, p)], {}, tmp_path)
    text, classes = (tmp_path / "report.html").read_text(), found["classes"]
    assert f"<b>{classes['accuracy']:.1%}</b>" in text and f"<b>{classes['one_off']:.1%}</b>" in text
    sheet = text[text.index("<h3>By age group</h3>") :]
    for name, row in classes["by"].items():
        assert (
            f"<td>{name}</td><td>{row['n']}</td><td>{row['accuracy']:.1%}" in sheet
            and f"{row['distance']:.2f}" in sheet
        )
    assert f"age-group accuracy {classes['accuracy']:.1%} of 300" in metrics_table(found)


@pytest.mark.slow
@IN_A_BROWSER
def test_one_input_is_short_on_a_phone_and_its_menu_opens_what_is_folded(page, tmp_path):
    shown = "document.querySelector('#confidence svg').checkVisibility({contentVisibilityAuto: true})"
    with Browser(tmp_path / "profile") as browser:
        browser.open(page / "report.html", 390, 900, False)
        assert browser.value(HEIGHT) <= 6000 and browser.value(FITS)
        assert not browser.value(shown)
        browser.value("document.querySelector('nav a[href=\"#confidence\"]').click()")
        assert browser.value(shown)
        browser.open(page / "report.html", 1280, 900, False)
        assert browser.value(shown)


@pytest.mark.slow
@IN_A_BROWSER
def test_it_looks_right_in_a_browser(evaluated, tmp_path):
    with Browser(tmp_path / "profile") as browser:
        pages = {"report.html": (IMAGES, 50_000), "matrix/report.html": (0, 5_000)}
        for (page, (images, size)), width, dark in product(pages.items(), (390, 1280), (False, True)):
            browser.open(evaluated / page, width, 900, dark)
            where = f"{page}, {width} px, {'dark' if dark else 'light'}"
            assert browser.value("innerWidth") == width, where
            assert browser.value(FITS) and browser.value(LOADED) and browser.value(PLOTS_SHOWN), where
            assert browser.value("document.images.length") == images, where
            assert browser.value(CONTRAST) >= 4.5 and browser.value(SMALLEST_LETTERS) >= 10, where
            ground = browser.value("getComputedStyle(document.body).backgroundColor")
            assert (ground == "rgb(255, 255, 255)") != dark, where
            browser.screenshot(tmp_path / "page.png")
            assert (tmp_path / "page.png").stat().st_size > size, where
        assert browser.complaints == []


@pytest.mark.slow
@IN_A_BROWSER
def test_tables_side_by_side_show_all_their_columns_on_a_desk(tmp_path):
    row = ["M", 44, *[Cell("-10.87", "[-19.92, -1.89]")] * 4]
    table = Table(["gender", "n", "MAE", "age-adjusted MAE", "bias", "CS@5"], [row], "By gender", ["a long note " * 30])
    path = tmp_path / "report.html"
    path.write_text(Page("Evaluation", [Part([Section("Subgroups", [Tables([table, table])])])]).html())
    with Browser(tmp_path / "profile") as browser:
        browser.open(path, 1100, 900, False)
        assert browser.value("[...document.querySelectorAll('.scroll')].every(e => e.scrollWidth <= e.clientWidth)")
        assert browser.value(FITS)
        browser.open(path, 390, 900, False)
        assert browser.value(FITS)


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
from mivolo_lite.evaluation.report import write_report
from mivolo_lite.evaluation.report_sections import Result
from mivolo_lite.evaluation.summary import summarise
from tests.evaluation.simulated import people, with_intervals
everyone, out = with_intervals(people(100_000)), Path(sys.argv[1])
start = time.process_time()
metrics = summarise(everyone, level=0.9)
write_csv({None: everyone}, out / "predictions.csv")
write_report([Result(None, metrics, everyone)], {}, out)
# getrusage's peak would be that of the process that this one was forked from, where that is larger.
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(time.process_time() - start, peak)
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path], cwd=Path(__file__).parents[2],
                          capture_output=True, text=True, timeout=580)  # fmt: skip
    assert done.returncode == 0, done.stderr
    seconds, kilobytes = map(float, done.stdout.split())
    assert seconds < 60 and kilobytes < 1e6, f"{seconds:.1f} s of one CPU, {kilobytes / 1e6:.2f} GB"
