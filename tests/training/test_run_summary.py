"""What ``mivolo-lite summary`` reads from a run's log."""

import json
import time

import pytest

from mivolo_lite.cli import main
from mivolo_lite.training.run_folder import RunFolder
from mivolo_lite.training.run_summary import in_lines, runs_in, summarise


def train(step, speed, seconds, goodput):
    return {
        **{"kind": "train", "step": step, "epoch": step / 10, "samples_per_second": speed, "wait": 0.1},
        **{"step_seconds": seconds, "goodput": goodput},
    }


def val(step, error, best):
    return {"kind": "val", "step": step, "mae": error, "error": error, "best": best}


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.begin("no")
    folder.begin_log(0, 40)
    for record in (train(10, 100, 8.0, 0.8), val(10, 5.0, True), train(20, 300, 16.0, 0.7), val(20, 6.0, False)):
        folder.log(record)
    return folder


def test_a_run_that_was_killed_resumed_and_completed(run):
    run.log(train(30, 200, 24.0, 0.6))
    run.log(val(30, 1.0, True))
    run.cut_log(20)  # killed at step 30, whose work is lost
    first_start, step_seconds = run.begin_log(20, 40)
    assert step_seconds == 16.0 and time.time() - 60 < first_start <= time.time()
    for record in (train(40, 200, 32.0, 0.5), val(40, 4.0, True)):
        run.log(record)
    run.log({"kind": "end", "step": 40, "complete": True, "goodput": 0.45, "step_seconds": 32.0})
    run.best.mkdir()
    summary = summarise(run.path)
    assert summary == {
        **{"run": str(run.path), "complete": True, "step": 40, "total_steps": 40, "epoch": 4.0},
        **{"best_error": 4.0, "best_mae": 4.0, "best_step": 40, "best_epoch": 4.0, "best_weights": str(run.best)},
        **{"samples_per_second": 200, "wait": 0.1, "mfu": None, "restarts": 1, "goodput": 0.45},
    }
    assert "best error     4 years at step 40, epoch 4" in in_lines(summary) and "peak" not in in_lines(summary)


def test_an_error_that_is_no_age_is_a_share(run):
    run.log({"kind": "val", "step": 30, "mae": None, "error": 0.25, "best": True})
    assert "best error     25.0% of answers wrong at step 30" in in_lines(summarise(run.path))


def test_the_command_prints_lines_or_json(run, capsys):
    main(["summary", str(run.path)])
    assert "step           20 of 40\n" in capsys.readouterr().out
    main(["summary", str(run.path), "--json"])
    assert json.loads(capsys.readouterr().out) == summarise(run.path)


def test_the_log_of_an_earlier_version_says_less(tmp_path):
    lines = [{"kind": "train", "step": 5, "samples_per_second": 7.0}, {"kind": "val", "step": 5, "mae": 5.5}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = summarise(tmp_path)
    assert (summary["best_error"], summary["best_step"], summary["restarts"], summary["goodput"]) == (
        5.5,
        5,
        None,
        None,
    )
    assert "goodput" not in in_lines(summary)


def test_the_best_evaluation_of_an_earlier_version_has_the_lowest_error_and_is_the_latest_of_equals(tmp_path):
    errors = [5.5, 4.5, None, 4.5, 6.5]
    lines = [{"kind": "val", "step": step, "mae": error} for step, error in enumerate(errors)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = summarise(tmp_path)
    assert (summary["best_error"], summary["best_step"]) == (4.5, 3)


def test_what_is_no_number_in_the_log_of_another_program_is_left_out(tmp_path, capsys):
    lines = [
        {"kind": "start", "step": 0, "total_steps": "many"},
        {"kind": "train", "step": 3, "epoch": "first", "wait": "long", "goodput": "good"},
        {"kind": "val", "step": 3, "mae": "low", "error": [1], "best": True},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    main(["summary", str(tmp_path)])
    assert capsys.readouterr().out == f"run            {tmp_path}\nstep           3\nrestarts       0\n"


def test_a_folder_without_a_run_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["summary", str(tmp_path)])
    assert stopped.value.code == 2 and "holds no run" in capsys.readouterr().err


def test_a_run_with_the_seeds_of_its_recipe_in_its_folder_is_one_of_them(run):
    assert runs_in(run.path) == [run.path] and runs_in(run.path / "nothing") == [run.path / "nothing"]
    for seed in ("seed-0", "seed-1"):
        RunFolder(run.path / seed).begin("no")
        RunFolder(run.path / seed).begin_log(0, 40)
    assert runs_in(run.path) == [run.path, run.path / "seed-0", run.path / "seed-1"]


def test_the_folder_of_several_runs_has_a_summary_of_each(run, capsys):
    later = RunFolder(run.path.parent / "seed-1")
    later.begin("no")
    (later.path / "metrics.jsonl").touch()
    main(["summary", str(run.path.parent)])
    printed = capsys.readouterr()
    assert printed.out.count("best error") == 1 and f"note: {later.path}: holds no run" in printed.err
    later.begin_log(0, 40)
    later.log(val(10, 3.0, True))
    main(["summary", str(run.path.parent), "--json"])
    assert json.loads(capsys.readouterr().out) == [summarise(run.path), summarise(later.path)]
