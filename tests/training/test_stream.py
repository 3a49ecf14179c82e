"""A run that learns from a stream, of which nothing is known before it is read."""

import json

import pytest

from mivolo_lite.card import Card
from mivolo_lite.cli import main
from mivolo_lite.errors import UserError
from mivolo_lite.shards.sample import Labels, Sample
from mivolo_lite.training.label_checks import require_learnt
from tests.shards.tiny_shards import noise_jpeg, write_shard
from tests.training.test_weighting import STREAM, words


@pytest.mark.slow
def test_a_run_learns_age_and_gender_from_a_stream(people, tmp_path, capsys):
    run, shard = tmp_path / "run", f"{people}/train/train-000000.tar"
    main(["train", *words(people, run, *STREAM), "--data.train", shard])
    assert "complete: lowest validation error" in capsys.readouterr().out
    end = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert end["complete"] and end["step"] == 4  # of 16 samples: 60 are an epoch
    assert Card.load(run / "best").gender


def test_a_stream_without_labels_is_one_line(people, tmp_path, capsys):
    samples = [Sample(f"{number}", noise_jpeg(number), None, Labels(extra={"Age": 31})) for number in range(4)]
    write_shard(tmp_path / "s.tar", samples)
    options = ["--data.train", f"{tmp_path}/s.tar", *STREAM[:-1], "16"]
    with pytest.raises(SystemExit) as stop:
        main(["train", *words(people, tmp_path / "run", *options)])
    assert stop.value.code == 2 and "none of 16 samples had an image and a label to learn" in capsys.readouterr().err


def test_a_few_samples_may_lack_labels():
    require_learnt(0.0, 16, 60)
    require_learnt(0.1, 5000, 60)
    with pytest.raises(UserError, match="none of 1000 samples"):
        require_learnt(0.0, 1000, 10**6)
