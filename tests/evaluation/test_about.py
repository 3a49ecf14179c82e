"""What a page says of a model and of data."""

from dataclasses import replace

import pytest
import yaml

from mivolo_lite.card import Card
from mivolo_lite.evaluation.about import about_data, about_model, training_data, was_trained_on
from mivolo_lite.lineage import joined_digests, lineage

DUAL = {"name": "dual", "face": "b", "body": "c"}
ENSEMBLE = Card({"name": "ensemble", "members": [DUAL, DUAL | {"body": "b"}, DUAL]}, {"name": "coral"}, {}, 112)
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


def saved(run, train, digest="", **config):
    (run / "best").mkdir(parents=True)
    replace(CARD, data_digest=digest).save(run / "best")
    (run / "config.yaml").write_text(yaml.safe_dump({"data": {"train": str(train)}, **config}))
    return str(run / "best")


def test_what_a_model_began_with_and_its_teachers_were_trained_on_counts_as_its_own(tmp_path):
    old = saved(tmp_path / "old", tmp_path / "a", "1" * 64)
    taught = saved(tmp_path / "taught", tmp_path / "b", optim={"teachers": [f"{tmp_path}/gone/best", old]})
    tuned = saved(tmp_path / "tuned", tmp_path / "c", init_from=taught)
    assert [folder.parent.name for folder in lineage(tuned)] == ["tuned", "taught", "old"]
    for name, is_known in zip("abcd", (True, True, True, False), strict=True):
        assert was_trained_on(tuned, tmp_path / name, "2" * 64, None) == is_known
    assert was_trained_on(tuned, "elsewhere", "1" * 64, None) and not was_trained_on(
        old, tmp_path / "c", "2" * 64, None
    )
    (tmp_path / "old/config.yaml").write_text(yaml.safe_dump({"init_from": tuned, "optim": 3}))  # no endless circle
    assert len(lineage(tuned)) == 3


def test_a_card_keeps_the_digests_of_what_it_was_made_from_each_once(tmp_path):
    old = saved(tmp_path / "old", tmp_path / "a", "12 x a + b")
    tuned = saved(tmp_path / "tuned", tmp_path / "b", "c + 12 x a", init_from=old)
    assert joined_digests("d", [tuned, f"{tmp_path}/gone/best", old]) == "d + c + 12 x a + b"
    assert joined_digests("", []) == "" and joined_digests("d", []) == "d"


def test_a_model_in_a_few_words(tmp_path):
    facts = about_model(tmp_path, CARD)
    assert facts["Model"] == "single b" and facts["Method"] == "coral" and facts["Image size"] == "112 px"
    assert about_model(tmp_path, ENSEMBLE)["Model"] == "ensemble of 2 x dual b c, dual b b"
    assert about_data("https://h/d?token=abc", "f" * 64, 1234) == f"https://h/d?*** (1,234 samples, digest {'f' * 12})"
