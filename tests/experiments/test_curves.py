"""The page of training curves, from logs as runs write them."""

import json

import pytest

from mivolo_lite.cli import main
from mivolo_lite.experiments.smoothing import smoothed


def write_log(run, *, steps=30, error=9.0):
    run.mkdir()
    records = [{"kind": "train", "step": step, "loss": 5 / step, "lr": 1e-3, "passes": {}} for step in range(1, steps)]
    records += [{"kind": "save", "step": steps, "seconds": 0.1}]
    records += [{"kind": "val", "step": step, "mae": error - step / 10, "cs5": 0.5} for step in (10, 20)]
    lines = [json.dumps(record) for record in records]
    (run / "metrics.jsonl").write_text("\n".join([*lines, '{"kind": "tr']))


@pytest.mark.slow
def test_the_page_has_every_curve_that_a_log_holds_and_the_best_of_each(tmp_path, capsys):
    write_log(tmp_path / "a")
    write_log(tmp_path / "b", error=8.0)
    main(["curves", f"{tmp_path}/a", f"{tmp_path}/b", "--out", f"{tmp_path}/out", "--figures", "svg"])
    plots = sorted(path.stem for path in (tmp_path / "out/plots").glob("[!.]*"))
    assert plots == ["train_loss", "train_lr", "val_cs5", "val_mae"]
    page = (tmp_path / "out/report.html").read_text()
    assert page.count("<svg") == 4 and "7.00" in page and "6.00" in page
    assert f"{tmp_path}/out/report.html" in capsys.readouterr().out


def test_one_run_at_work_that_was_never_evaluated(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/metrics.jsonl").write_text('{"kind": "train", "step": 10, "loss": 2.0}\n')
    main(["curves", str(tmp_path), "--out", f"{tmp_path}/out"])  # the folder of several runs
    assert "not evaluated yet" in (tmp_path / "out/report.html").read_text()


def test_of_several_runs_some_may_have_no_step_yet(tmp_path):
    write_log(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/metrics.jsonl").write_text('{"kind": "start", "step": 0, "time": 1.0}\n')
    main(["curves", str(tmp_path), "--out", f"{tmp_path}/out"])
    page = (tmp_path / "out/report.html").read_text()
    assert "no step yet" in page and "7.00" in page


def test_what_is_no_number_in_the_log_of_another_program_is_left_out(tmp_path):
    (tmp_path / "a").mkdir()
    lines = ['{"kind": "train", "step": 3, "loss": "low"}', '{"kind": "val", "step": 3, "mae": "bad", "best": true}']
    (tmp_path / "a/metrics.jsonl").write_text("\n".join(lines))
    main(["curves", f"{tmp_path}/a", "--out", f"{tmp_path}/out"])
    assert "bad" not in (tmp_path / "out/report.html").read_text()


def test_a_run_has_its_folders_name_also_where_one_is_in_it(tmp_path, monkeypatch):
    write_log(tmp_path / "mine")
    monkeypatch.chdir(tmp_path / "mine")
    main(["curves", ".", "--out", f"{tmp_path}/out"])
    assert "<td>mine</td>" in (tmp_path / "out/report.html").read_text()


def test_a_run_whose_validation_data_has_no_ages_was_evaluated(tmp_path):
    (tmp_path / "a").mkdir()
    record = {"kind": "val", "step": 10, "mae": None, "cs5": None, "gender_accuracy": 0.75}
    (tmp_path / "a/metrics.jsonl").write_text(json.dumps(record) + "\n")
    main(["curves", f"{tmp_path}/a", "--out", f"{tmp_path}/out"])
    page = (tmp_path / "out/report.html").read_text()
    assert "evaluated, without ages to compare" in page and "not evaluated yet" not in page


def test_the_table_has_the_evaluation_whose_weights_were_kept(tmp_path):
    (tmp_path / "a").mkdir()
    scores = [(10, None, 0.6), (20, 5.0, 0.81), (30, 5.0, 0.72)]  # of equals the latest
    records = [
        {"kind": "val", "step": step, "mae": mae, "cs5": 0.5, "gender_accuracy": accuracy, "best": True}
        for step, mae, accuracy in scores
    ]
    (tmp_path / "a/metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    main(["curves", f"{tmp_path}/a", "--out", f"{tmp_path}/out"])
    page = (tmp_path / "out/report.html").read_text()
    assert "72.0%" in page and "81.0%" not in page


def test_smoothing_a_constant_leaves_it():
    assert list(smoothed([2.5] * 5)) == pytest.approx([2.5] * 5)


@pytest.mark.parametrize(
    "content, message",
    [(None, "no metrics.jsonl"), ("no json\n", "no step yet"), ('{"kind": "val", "mae": 3}\n', "no step yet")],
)
def test_a_folder_without_a_log_is_one_line(tmp_path, content, message, capsys):
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(SystemExit) as stop:
        main(["curves", str(tmp_path), "--out", f"{tmp_path}/out"])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and len(error.splitlines()) == 1
