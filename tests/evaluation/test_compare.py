"""Evaluations against each other, by image."""

import json
import re
from dataclasses import replace
from html import unescape

import numpy as np
import pytest

from mivolo_lite.card import NO_AGES
from mivolo_lite.cli import main
from mivolo_lite.errors import UserError
from mivolo_lite.evaluation.about import TRAINED_ON
from mivolo_lite.evaluation.compare import _difference_interval, compare, comparison_table, read_runs
from mivolo_lite.evaluation.comparison_files import latex_table, write_comparison
from mivolo_lite.evaluation.plots import curves
from mivolo_lite.evaluation.predictions import Predictions, read_csv, write_csv
from mivolo_lite.evaluation.short_names import distinct_labels
from mivolo_lite.evaluation.summary import age_curves, summarise
from mivolo_lite.reporting.plot_folder import LIST
from mivolo_lite.reporting.plots import REFERENCE
from tests.evaluation.simulated import people, pick


def saved(folder, predictions=None, **columns):
    folder.mkdir()
    write_csv(columns or {None: predictions}, folder / "predictions.csv")
    return folder


def shifted(predictions, mean, noise, seed=9):
    """The same estimates, further from the truth by about ``mean`` years on each image."""
    random = np.random.default_rng(seed)
    sign = np.where(predictions.age >= predictions.age_lo, 1, -1)
    return replace(predictions, age=predictions.age + sign * random.normal(mean, noise, len(sign)))


def test_the_csv_is_read_as_it_was_written(tmp_path):
    one = replace(people(50, unknown=0.2), lower=np.zeros(50), upper=np.full(50, 9.0))
    other = people(50, spread=False)
    other.age[3] = other.female[3] = np.nan
    write_csv({"face": one, "both": other}, tmp_path / "p.csv")
    back = read_csv(tmp_path / "p.csv")
    assert list(back) == ["face", "both"] and back["both"].spread is back["both"].lower is None
    for name in ("age", "female", "age_lo", "age_hi", "spread", "lower", "upper"):
        np.testing.assert_allclose(getattr(back["face"], name), getattr(one, name), atol=1e-4)
    assert np.isnan(back["both"].age[3]) and back["face"].key == one.key
    assert back["face"].gender == one.gender and back["face"].group == one.group
    (tmp_path / "p.csv").write_text((tmp_path / "p.csv").read_text(), encoding="utf-8-sig")  # as Excel saves it
    assert read_csv(tmp_path / "p.csv")["face"].key == one.key


def test_columns_that_a_user_added_are_passed_over(tmp_path):
    write_csv({None: people(3)}, tmp_path / "p.csv")
    head, *rows = (tmp_path / "p.csv").read_text().splitlines()
    noted = [f"{head},note,age_group", *(f"{row},wrong box,adult" for row in rows)]
    (tmp_path / "p.csv").write_text("\n".join(noted))
    assert len(read_csv(tmp_path / "p.csv")[None].key) == 3


def test_out_is_no_folder_of_an_evaluation(tmp_path):
    folders = [saved(tmp_path / name, people(40)) for name in "ab"]
    (folders[0] / "report.html").write_text("of the evaluation")
    with pytest.raises(UserError, match="holds an evaluation, whose report.html would be replaced"):
        write_comparison(folders, folders[0])
    assert (folders[0] / "report.html").read_text() == "of the evaluation"


def test_a_difference_is_paired_and_hence_told_from_noise(tmp_path):
    first = people(400)
    folders = [saved(tmp_path / "a", first), saved(tmp_path / "b", shifted(first, 0.3, 0.5))]
    rows = compare(folders)["rows"]
    difference = rows[1]["mae"]["difference"]
    assert rows[0]["mae"]["interval"][1] > rows[1]["mae"]["interval"][0], "the two intervals overlap"
    assert difference["value"] == pytest.approx(rows[1]["mae"]["value"] - rows[0]["mae"]["value"])
    assert difference["more_than_noise"] and difference["interval"][0] > 0.2 and "difference" not in rows[0]["mae"]
    assert rows[1]["gender_accuracy"]["difference"]["value"] == 0
    assert not rows[1]["gender_accuracy"]["difference"]["more_than_noise"]


@pytest.mark.slow
def test_equal_models_differ_by_noise_as_often_as_promised(tmp_path):
    # Far from the truth, where a shift of mean 0 leaves the mean error as it is.
    first, found = people(120), 0
    first = replace(first, age=first.age + 50 * np.sign(first.age - first.age_lo))
    a = saved(tmp_path / "a", first)
    for trial in range(40):
        b = saved(tmp_path / f"b{trial}", shifted(first, 0.0, 3.0, trial))
        found += compare([a, b])["rows"][1]["mae"]["difference"]["more_than_noise"]
    assert found <= 6  # 2 expected of 40


def test_more_runs_need_larger_differences(tmp_path):
    first = people(200)
    folders = [saved(tmp_path / f"{number}", shifted(first, 0.05 * number, 1.0, number)) for number in range(6)]
    pair, all_six = compare(folders[:2]), compare(folders)
    widths = [np.diff(found["rows"][1]["mae"]["difference"]["interval"])[0] for found in (pair, all_six)]
    assert pair["level"] == 0.95 and all_six["level"] == 0.99 and widths[0] < widths[1]
    assert len(all_six["rows"]) == 6
    assert comparison_table(all_six).endswith("hold 99.00%, 95 % for all 5 together, for each metric on its own")


@pytest.mark.slow
def test_many_equal_models_of_few_images_differ_by_noise_as_often_as_promised():
    random, level = np.random.default_rng(0), 1 - 0.05 / 9
    found = sum(
        not low <= 0 <= high
        for low, high in (_difference_interval(random.laplace(size=30), level) for _ in range(4000))
    )
    assert found / 4000 <= 1.3 * (1 - level)  # of a bootstrap it was twice as many


def test_samples_are_matched_by_key_whatever_their_order(tmp_path):
    first = people(60)
    rows = compare([saved(tmp_path / "a", first), saved(tmp_path / "b", pick(first, np.arange(60)[::-1]))])["rows"]
    assert rows[1]["mae"]["difference"]["value"] == 0 == rows[1]["mae"]["difference"]["interval"][1]


def test_inputs_of_one_evaluation_are_compared_where_both_have_an_estimate(tmp_path):
    face = people(80)
    body = shifted(face, 4.0, 1.0)
    body.age[:30] = body.female[:30] = np.nan
    rows = compare([saved(tmp_path / "a", face=face, body=body)])["rows"]
    assert [row["name"] for row in rows] == [f"{tmp_path}/a (face)", f"{tmp_path}/a (body)"]
    assert rows[0]["mae"]["n"] == 80 and rows[1]["mae"]["n"] == rows[1]["mae"]["difference"]["n"] == 50
    assert rows[1]["mae"]["difference"]["value"] == pytest.approx(4, abs=0.5)
    swapped = comparison_table(compare([saved(tmp_path / "b", body=body, face=face)]))
    assert [line.endswith("(n=50)") for line in swapped.splitlines()[1:3]] == [False, True]  # not of the face's 80


def test_what_cannot_be_compared_is_one_line(tmp_path):
    first = people(40)
    a = saved(tmp_path / "a", first)
    fewer = pick(first, np.arange(1, 40))
    with pytest.raises(UserError, match="1 only in the first and 0 only in the second, as p000000"):
        compare([a, saved(tmp_path / "fewer", fewer)])
    with pytest.raises(UserError, match="0 only in the first and 2 only in the second, as p000000"):
        compare([saved(tmp_path / "two fewer", pick(first, np.arange(2, 40))), a])
    with pytest.raises(UserError, match="other labels"):
        compare([a, saved(tmp_path / "older", replace(first, age_lo=first.age_lo + 1, age_hi=first.age_hi + 1))])
    with pytest.raises(UserError, match="more than once"):
        compare([a, saved(tmp_path / "twice", replace(first, key=[first.key[0]] * 40))])
    with pytest.raises(UserError, match="no predictions.csv here"):
        compare([a, tmp_path])
    with pytest.raises(UserError, match="at least two"):
        compare([a])
    with pytest.raises(UserError, match="/a .*/b/../a: one of them is given twice"):
        compare([a, tmp_path / "b" / ".." / "a"])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "predictions.csv").write_text("key,age\nx,3\n")
    with pytest.raises(UserError, match="its columns are 'key, age'"):
        compare([a, tmp_path / "other"])
    text = (a / "predictions.csv").read_text().splitlines()
    (tmp_path / "other" / "predictions.csv").write_text("\n".join([text[0], "x,old,1,F,0.5,g,1"]))
    with pytest.raises(UserError, match="not a number"):
        compare([a, tmp_path / "other"])


def test_files_beside_the_folders_of_a_matrix_are_passed_over(tmp_path):
    for name in "ab":
        saved(tmp_path / name, people(40))
    for name in ("matrix.csv", "matrix.json", "report.html"):
        (tmp_path / name).touch()
    matrix = sorted(tmp_path.iterdir())
    assert [row["name"] for row in compare(matrix)["rows"]] == [str(tmp_path / name) for name in "ab"]
    with pytest.raises(UserError, match="report.html: give at least two"):
        compare(matrix[-1:])


def test_the_command_prints_a_verdict(tmp_path, capsys):
    first = people(300)
    folders = [saved(tmp_path / "a", first), saved(tmp_path / "b", shifted(first, 1.0, 0.2))]
    main(["compare", *map(str, folders)])
    lines = capsys.readouterr().out.splitlines()
    mae = next(line for line in lines if line.startswith(str(folders[1])))
    assert mae.endswith("worse") and "+1.0" in mae
    assert json.loads(json.dumps(compare(folders)))["level"] == 0.95
    with pytest.raises(SystemExit) as stop:
        main(["compare", str(folders[0]), str(tmp_path / "nowhere")])
    assert stop.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def flat(n, error, female=0.9):
    """Women of 20 whose estimates are all off by the same."""
    age = np.full(n, 20.0)
    columns = ([f"k{number}" for number in range(n)], age + error, np.full(n, female), age, age, ["F"] * n, [None] * n)
    return Predictions(*columns)


def test_few_images_have_no_interval_of_the_mae_and_no_verdict(tmp_path):
    folders = [saved(tmp_path / "a", flat(29, 4.0)), saved(tmp_path / "b", flat(29, 6.5))]
    found = write_comparison(folders, tmp_path / "out")
    difference = found["rows"][1]["mae"]["difference"]
    assert difference["value"] == 2.5 and difference["interval"] is None and not difference["more_than_noise"]
    assert comparison_table(found).splitlines()[2].endswith("too few")
    assert "b,mae,29,6.500000,,,2.500000,,,29,no" in (tmp_path / "out" / "comparison.csv").read_text().replace(
        f"{tmp_path}/", ""
    )
    assert r"b & 6.50 & +2.50 & " in (tmp_path / "out" / "comparison.tex").read_text()


def test_a_model_without_a_gender_has_dashes_in_its_place(tmp_path):
    genders = {"a": 0.9, "b": 0.9, "c": np.nan}
    found = compare([saved(tmp_path / name, flat(29, 4.0, female)) for name, female in genders.items()])
    row = latex_table(found, list(genders)).splitlines()[-3]
    assert row.startswith("c & 4.00 & +0.00 & 100.0") and row.endswith(r"] & -- & -- \\")
    assert "97.50%, 95 % for all 2 together" in latex_table(found, list(genders))
    lines = comparison_table(found).splitlines()
    assert lines[-3].split() == [f"{tmp_path}/c", "-"] and "97.50%, 95 % for all 2 together" in lines[-1]
    nobody = compare([saved(tmp_path / name, flat(29, 4.0, np.nan)) for name in "de"])
    assert "ender accuracy" not in latex_table(nobody, ["d", "e"]) + comparison_table(nobody)


def test_curves_have_the_signs_of_their_errors():
    row = age_curves(flat(40, -4.0))["by"]["age"]["20-29"]
    assert (row["mae"], row["bias"]) == (4, -4) and row["mae_interval"] == [4, 4] and row["bias_interval"] == [-4, -4]


def test_an_evaluation_without_enough_images_in_any_age_bin_has_no_points_of_its_own():
    """As of the bodies in a data set of faces."""
    plots = {plot.name: plot for plot in curves({"face": age_curves(flat(40, 4.0)), "body": age_curves(flat(5, 4.0))})}
    face, body = plots["mae_by_age"].figure.axes[0].lines
    assert list(face.get_ydata()) == [4] and not len(body.get_ydata())


def test_what_else_evaluations_differ_in_is_said_once(tmp_path):
    """As a model that saw these images in its training, which wins against any other."""
    folders = [saved(tmp_path / name, flat(30, 4.0)) for name in "abc"]
    data = {"folder": "data/val", "trained_on": True, "no_ages": True}
    described = ({"tta": "flip", "data": data}, {"data": data}, {"data": {"folder": "data/val"}})
    for folder, metrics in zip(folders, described, strict=True):
        (folder / "metrics.json").write_text(json.dumps({"checkpoint": "x"} | metrics))
    found = write_comparison(folders, tmp_path / "out")
    a, b, _ = map(str, folders)
    *of_both, mirrored = found["cautions"]
    assert of_both == [f"{a}, {b}: {NO_AGES}", f"{a}, {b}: {TRAINED_ON}"]
    assert mirrored.startswith(f"{a}: The estimates are with --tta flip")
    page = unescape((tmp_path / "out" / "report.html").read_text())
    for text in (comparison_table(found), latex_table(found, "abc"), page):
        assert all(caution in text for caution in found["cautions"])
    assert compare(folders[1:])["cautions"] == [f"{b}: {NO_AGES}", f"{b}: {TRAINED_ON}"]


@pytest.mark.slow
def test_out_has_the_same_numbers_as_csv_latex_and_page(tmp_path, capsys):
    folders = [saved(tmp_path / "a_1", flat(40, 4.0)), saved(tmp_path / "b", flat(40, 6.5, female=0.1))]
    (tmp_path / "a_1" / "metrics.json").write_text('{"checkpoint": "runs/<a>", "data": {"folder": "data/val"}}')
    (tmp_path / "out" / "plots").mkdir(parents=True)
    (tmp_path / "out" / "plots" / "old.png").write_bytes(b"")
    (tmp_path / "out" / "plots" / LIST).write_text("old.png")
    main(["compare", *map(str, folders), "--out", f"{tmp_path}/out", "--figures", "pdf"])
    out = tmp_path / "out"
    names = {"comparison.json", "comparison.csv", "comparison.tex", "report.html", "plots"}
    assert {path.name for path in out.iterdir()} == names and f"written to {out}" in capsys.readouterr().out
    assert {path.name for path in (out / "plots").glob("[!.]*")} == {"mae_by_age.pdf", "bias_by_age.pdf", "cs.pdf"}
    assert json.loads((out / "comparison.json").read_text()) == compare(folders)
    assert (out / "comparison.csv").read_text().replace(f"{tmp_path}/", "").splitlines() == [
        "evaluation,metric,n,value,lower,upper,difference,difference_lower,difference_upper,difference_n,more_than_noise",
        "a_1,mae,40,4.000000,4.000000,4.000000,,,,,",
        "a_1,cs5,40,1.000000,0.911903,1.000000,,,,,",
        "a_1,gender_accuracy,40,1.000000,0.911903,1.000000,,,,,",
        "b,mae,40,6.500000,6.500000,6.500000,2.500000,2.500000,2.500000,40,yes",
        "b,cs5,40,0.000000,0.000000,0.088097,-1.000000,-1.000000,-0.872847,40,yes",
        "b,gender_accuracy,40,0.000000,0.000000,0.088097,-1.000000,-1.000000,-0.872847,40,yes",
    ]
    tex = (out / "comparison.tex").read_text()
    assert r"a\_1 & 4.00 [4.00, 4.00] & -- & 100.0\% [91.2\%, 100.0\%] & --" in tex
    assert r"b & 6.50 [6.50, 6.50] & +2.50 [+2.50, +2.50]$^*$ & 0.0\% [0.0\%, 8.8\%] & $-$100.0\% [" in tex
    text = (out / "report.html").read_text()
    links = re.findall(r'<a href="(?!#)([^"]*)', text)
    assert links == ["comparison.json", "comparison.csv", "comparison.tex"]
    assert "runs/&lt;a&gt;" in text and "Lower is better." in text and ">worse<" in text and text.count("<svg") == 3


@pytest.mark.slow
def test_curves_of_all_evaluations_are_in_one_plot(tmp_path):
    first = people(300)
    runs = read_runs([saved(tmp_path / "a", first), saved(tmp_path / "b", shifted(first, 3.0, 1.0))])
    plots = {plot.name: plot for plot in curves({run.name: age_curves(run.predictions) for run in runs})}
    lines = [line for line in plots["mae_by_age"].figure.axes[0].lines if line.get_gid() != REFERENCE]
    rows = [summarise(run.predictions)["by"]["age"] for run in runs]
    assert set(plots) == {"mae_by_age", "bias_by_age", "cs"} and len(lines) == 2
    for line, row in zip(lines, rows, strict=True):
        np.testing.assert_allclose(line.get_ydata(), [each["mae"] for each in row.values() if each["n"] >= 30])
    for plot in plots.values():
        (legend,), (axes,) = plot.figure.legends, plot.figure.axes
        assert [text.get_text() for text in legend.get_texts()] == [f"{tmp_path}/a", f"{tmp_path}/b"]
        assert legend.get_window_extent().y0 >= axes.get_window_extent().y1  # it covers nothing


@pytest.mark.parametrize(
    "names, labels",
    [
        (["runs/x/evaluation", "runs/y/evaluation"], ["x", "y"]),
        (["runs/x (face)", "runs/x (both)"], ["face", "both"]),
        (["x (face)", "y (both)"], ["x face", "y both"]),
        (["runs", "runs/b"], ["runs", "runs/b"]),
        (["a/b", "b/b", "a/c"], ["a b", "b b", "a c"]),
    ],
)
def test_labels_are_what_tells_names_apart(names, labels):
    assert distinct_labels(names) == labels


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-9],
        lambda text: text.replace(",M,", ",X,", 1),
        lambda text: text.replace(",M,", ",M,7.5", 1),
        lambda text: text.replace("p000003", "", 1),
        lambda text: text.replace("gender_prob", "gender", 1),
        lambda text: text.replace("p000003,", "p000003,inf;", 1),
        lambda text: text.replace("p000003,", "p000003,99;", 1),
        lambda text: text + "one,cell,too,many,,,,,,,,\n",
    ],
)
def test_a_damaged_csv_is_one_line(change, tmp_path):
    folder = saved(tmp_path / "a", people(20))
    text = (folder / "predictions.csv").read_text()
    (folder / "predictions.csv").write_text(change(text))
    with pytest.raises(UserError, match="predictions.csv: ") as error:
        read_csv(folder / "predictions.csv")
    assert str(error.value).isprintable()


def test_semicolons_between_the_columns_are_named(tmp_path):
    folder = saved(tmp_path / "a", people(20))
    text = (folder / "predictions.csv").read_text()
    (folder / "predictions.csv").write_text(text.replace(",", ";"))
    with pytest.raises(UserError, match="predictions.csv: its columns are separated by semicolons, as Excel saves"):
        read_csv(folder / "predictions.csv")
