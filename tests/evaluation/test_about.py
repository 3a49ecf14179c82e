"""What a page says of a model and of data."""

import pytest

from mivolo_lite.card import Card
from mivolo_lite.evaluation.about import about_data, about_model, training_data

CARD = Card({"name": "single", "backbone": "b"}, {"name": "coral"}, {}, 112, data_digest="0123456789abcdef")


@pytest.mark.parametrize(
    "train, words",
    [
        ("data/x", "data/x (digest 0123456789ab)"),
        (
            "[{path: data/x, weight: 2}, {path: 's3://me:secret@bucket/y'}]",
            "data/x, s3://***@bucket/y (digest 0123456789ab)",
        ),
        ("{broken", "digest 0123456789ab"),
        ("[{folder: data/x}]", "digest 0123456789ab"),
    ],
)
@pytest.mark.parametrize("checkpoint", ["best", "checkpoints/step-000000010", "."])
def test_the_training_data_are_those_of_the_run(train, words, checkpoint, tmp_path):
    (tmp_path / "run" / "best").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text(f"data: {{train: {train}}}\n")
    assert training_data(tmp_path / "run" / checkpoint, CARD) == words


def test_a_configuration_that_lies_near_by_chance_is_not_read(tmp_path):
    (tmp_path / "config.yaml").write_text("data: {train: data/x}\n")
    (tmp_path / "converted").mkdir()
    assert training_data(tmp_path / "converted", CARD) == "digest 0123456789ab"


def test_a_model_in_a_few_words(tmp_path):
    facts = about_model(tmp_path, CARD)
    assert facts["Model"] == "single b" and facts["Method"] == "coral" and facts["Image size"] == "112 px"
    assert about_data("https://h/d?token=abc", "f" * 64, 1234) == f"https://h/d?*** (1,234 samples, digest {'f' * 12})"
