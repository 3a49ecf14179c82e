"""How well tasks in addition to age and gender are answered."""

import numpy as np
import pytest

from mivolo_lite.evaluation.metrics import evaluate_predictions, task_metrics
from mivolo_lite.evaluation.predictions import Predictions, TaskAnswers
from mivolo_lite.evaluation.table import metrics_table


def test_only_known_labels_count():
    answer, truth = np.array([0.0, 2.0, 1.0, 1.0]), np.array([0.0, 1.0, np.nan, 1.0])
    assert task_metrics("mood", TaskAnswers("classification", answer, truth)) == {"mood_accuracy": 2 / 3, "mood_n": 3}
    pitch = task_metrics("pitch", TaskAnswers("regression", answer, truth))
    assert pitch == {"pitch_mae": pytest.approx(1 / 3), "pitch_n": 3}


def test_they_stand_beside_age_and_gender():
    mood = TaskAnswers("classification", np.array([0.0, 1.0]), np.array([0.0, 0.0]))
    age = np.array([30.0, 40.0])
    predictions = Predictions(["a", "b"], age, np.array([0.9, 0.1]), age, age, ["F", "F"], [None] * 2, {"mood": mood})
    metrics = evaluate_predictions(predictions)
    assert metrics["mood_accuracy"] == 0.5 and metrics["gender_accuracy"] == 0.5
    text = metrics_table(metrics)
    assert "gender accuracy 50.0% of 2\nmood accuracy 50.0% of 2" in text
