"""What an earlier version wrote still works: packed shards, a configuration, a run's checkpoint and its best weights.

``run.tar.xz`` holds 12 synthetic people, a configuration, and a run of two inputs that was stopped at step 9 of 12, all
written at commit e3b3f9d, before names were changed; what that version answered is pinned here. Its weights were
rounded to few values, so that the file is small.
"""

import csv
import json
import tarfile
from pathlib import Path

import pytest

from mivolo_lite.cli import main
from mivolo_lite.config import read_run_config
from mivolo_lite.shards.index import ShardIndex

AGES = {"people_0_0000007": 54.0792, "people_0_0000005": 54.0622, "people_0_0000002": 54.0807}
"""What the earlier version estimated with the best weights."""


@pytest.fixture
def earlier(tmp_path, monkeypatch):
    with tarfile.open(Path(__file__).with_name("run.tar.xz")) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_packed_shards_are_read(earlier):
    index = ShardIndex.load(earlier / "data" / "train")
    assert len(index) == 9 and index.info["labels"]["gender"] == {"M": 4, "F": 5}


def test_best_weights_answer_the_same(earlier):
    main("evaluate --checkpoint run --data data/val --out evaluation --workers 0 --report no".split())
    with open("evaluation/predictions.csv") as file:
        found = {row["key"]: float(row["age_pred"]) for row in csv.DictReader(file)}
    assert found == pytest.approx(AGES, abs=1e-3)


def test_a_run_resumes_from_its_checkpoint(earlier, capsys):
    """It ends at nearly the same error: batch norm counted some of the images twice in batches that lacked others, and
    the same seed augmented the images otherwise."""
    main("train --config old.yaml --resume auto".split())
    last = [record for record in map(json.loads, open("run/metrics.jsonl")) if record["kind"] == "val"][-1]
    assert last["step"] == 12 and last["mae"] == pytest.approx(42.299756, abs=0.1)
    assert "resumed at step 9" in capsys.readouterr().out


def test_a_damaged_file_is_named_as_it_is_called(earlier, capsys):
    (earlier / "run" / "checkpoints" / "step-000000009" / "moments.safetensors").write_bytes(b"")
    with pytest.raises(SystemExit):
        main("train --config old.yaml --resume auto".split())
    assert "moments.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--part 1/2", "--min-pictures 2"])
def test_an_earlier_option_is_read_and_the_new_name_said(tmp_path, capsys, option):
    with pytest.raises(SystemExit):
        main(f"pack identities --images {tmp_path}/none --out {tmp_path}/out {option}".split())
    said = capsys.readouterr().err
    assert ("--part is called --shard now" in said) != ("--min_pictures is called --min_images now" in said)
    assert "no such folder" in said


def test_an_earlier_key_of_a_configuration_is_read(earlier, capsys):
    """The run's own config.yaml has a ``start``."""
    config = read_run_config(["--config", "run/config.yaml", "--start", "run/best"])
    assert config.init_from == "run/best"
    assert "run/config.yaml: start is called init_from now" in capsys.readouterr().err
    assert read_run_config(["--config", "old.yaml", "--init-from", "x"]).init_from.endswith("x")
    assert capsys.readouterr().err == ""
