"""How well tasks in addition to age and gender are answered."""

from dataclasses import replace

import numpy as np
import pytest

from mivolo_lite.evaluation.headline import headline
from mivolo_lite.evaluation.metrics import task_metrics
from mivolo_lite.evaluation.predictions import Predictions, TaskAnswers
from mivolo_lite.evaluation.summary import summarise
from mivolo_lite.evaluation.table import metrics_table


def test_only_known_labels_count():
    answer, truth = np.array([0.0, 2.0, 1.0, 1.0]), np.array([0.0, 1.0, np.nan, 1.0])
    assert task_metrics("mood", TaskAnswers("classification", answer, truth)) == {"mood_accuracy": 2 / 3, "mood_n": 3}
    pitch = task_metrics("pitch", TaskAnswers("regression", answer, truth))
    assert pitch == {"pitch_mae": pytest.approx(1 / 3), "pitch_n": 3}


def test_they_stand_beside_age_and_gender():
    predictions = answered()
    metrics = summarise(predictions)
    assert metrics["mood_accuracy"] == 0.5 and metrics["gender_accuracy"] == 0.5
    text = metrics_table(metrics)
    assert "gender accuracy 50.0% of 2\nmood accuracy 50.0% of 2\npitch MAE 2.50 of 1" in text and "group" not in text
    unseen = {name: replace(task, answer=np.full(2, np.nan)) for name, task in predictions.tasks.items()}
    body = summarise(replace(predictions, tasks=unseen))
    lines = metrics_table({"inputs": {"body": body | {"missing": 0}, "face": metrics | {"missing": 0}}}).splitlines()
    assert next(line for line in lines if line.startswith("pitch MAE")).split() == ["pitch", "MAE", "0", "1", "2.50"]


def test_long_names_keep_the_columns():
    predictions = replace(answered(), group=["short", "a rather long name"])
    ends = {line.rstrip().rfind("1") for line in metrics_table(summarise(predictions)).splitlines()[-8:-6]}
    assert len(ends) == 1


def test_the_report_has_them():
    found = {measure.name: measure.value for measure in headline(summarise(answered()))}
    assert found["Accuracy, mood"] == "50.0%" and found["MAE, pitch"] == "2.50"


def answered():
    """Two women, whose mood is known, and of one the pitch."""
    tasks = {
        "mood": TaskAnswers("classification", np.array([0.0, 1.0]), np.array([0.0, 0.0])),
        "pitch": TaskAnswers("regression", np.array([1.0, 1.0]), np.array([-1.5, np.nan])),
    }
    age = np.array([30.0, 40.0])
    return Predictions(["a", "b"], age, np.array([0.9, 0.1]), age, age, ["F", "F"], [None] * 2, tasks)
