"""A run that learns from a stream, of which nothing is known before it is read."""

import json

import pytest

from mivolo_lite.card import Card
from mivolo_lite.cli import main
from tests.training.test_weighting import STREAM, words


@pytest.mark.slow
def test_a_run_learns_age_and_gender_from_a_stream(people, tmp_path, capsys):
    run, shard = tmp_path / "run", f"{people}/train/train-000000.tar"
    main(["train", *words(people, run, *STREAM), "--data.train", shard])
    assert "complete: lowest validation error" in capsys.readouterr().out
    end = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert end["complete"] and end["step"] == 4  # of 16 samples: 60 are an epoch
    assert Card.load(run / "best").gender
