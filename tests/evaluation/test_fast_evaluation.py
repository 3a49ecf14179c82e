"""Evaluation on a CPU runs the copy for inference, whose answers are the model's."""

import csv

import pytest
import torch

from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.evaluation.evaluate import evaluate
from mivolo_lite.models import MODELS
from tests.models.tiny import SIDE, TinyMivolo


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="evaluates on the GPU")
def test_the_fast_copy_answers_in_the_same_way(people, tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "tiny", TinyMivolo)
    card = Card({"name": "tiny", "input": "face"}, {"name": "regression"}, {"min_age": 0, "max_age": 100}, SIDE)
    estimator = Estimator(card)
    estimator.method.fit_prior(torch.arange(101))
    estimator.save(tmp_path / "best")
    copies, make = [], TinyMivolo.for_inference

    def answers(out):
        evaluate(tmp_path / "best", people / "val", tmp_path / out)
        with open(tmp_path / out / "predictions.csv", newline="") as file:
            return [float(row["age_pred"]) for row in csv.DictReader(file)]

    monkeypatch.setattr(TinyMivolo, "for_inference", lambda model: copies.append(make(model)) or copies[-1])
    fast = answers("fast")
    assert len(copies) == 1
    monkeypatch.setattr(TinyMivolo, "for_inference", lambda model: model)
    assert fast == pytest.approx(answers("slow"), abs=2e-4)  # years, of which the file has four digits
