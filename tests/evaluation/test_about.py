"""What a page says of a model and of data."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import yaml

from mivolo_lite.card import Card
from mivolo_lite.evaluation.about import about_data, about_model, training_data, was_trained_on
from mivolo_lite.lineage import joined_digests, lineage, shares_samples, with_full_digests

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


def named(digest, full_digest="", folds=None):
    """What an index says of which samples it has."""
    return SimpleNamespace(digest=digest, full_digest=full_digest or digest, folds=folds)


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
        assert was_trained_on(tuned, tmp_path / name, named("2" * 64)) == is_known
    assert was_trained_on(tuned, "elsewhere", named("1" * 64))
    assert not was_trained_on(old, tmp_path / "c", named("2" * 64))
    (tmp_path / "old/config.yaml").write_text(yaml.safe_dump({"init_from": tuned, "optim": 3}))  # no endless circle
    assert len(lineage(tuned)) == 3


def test_a_card_keeps_the_digests_of_what_it_was_made_from_each_once(tmp_path):
    old = saved(tmp_path / "old", tmp_path / "a", "12 x a + b")
    tuned = saved(tmp_path / "tuned", tmp_path / "b", "c + 12 x a", init_from=old)
    assert joined_digests("d", [tuned, f"{tmp_path}/gone/best", old]) == "d + c + 12 x a + b"
    assert joined_digests("", []) == "" and joined_digests("d", []) == "d"


WHOLE, OTHER = named("a" * 64), named("b" * 64)
FOLDS = {folds: named("".join(map(str, folds)) * 32, WHOLE.digest, folds) for folds in [(0,), (1,), (0, 1), (10,)]}
FILTERED = named("c" * 64, WHOLE.digest)


@pytest.mark.parametrize(
    "learnt, shared",
    [
        ([WHOLE], [WHOLE, *FOLDS.values(), FILTERED]),
        ([FOLDS[0,]], [WHOLE, FOLDS[0,], FOLDS[0, 1], FILTERED]),
        ([FOLDS[0, 1]], [WHOLE, FOLDS[0,], FOLDS[1,], FOLDS[0, 1], FILTERED]),
        ([FILTERED], [WHOLE, *FOLDS.values(), FILTERED]),
        ([OTHER, FOLDS[10,]], [WHOLE, OTHER, FOLDS[10,], FILTERED]),
    ],
)
def test_a_card_alone_tells_which_parts_of_a_data_set_share_samples(learnt, shared):
    own = with_full_digests(" + ".join(f"2 x {index.digest}" for index in learnt), learnt)
    card = joined_digests(own, [])
    for index in [WHOLE, OTHER, FILTERED, *FOLDS.values()]:
        assert shares_samples(card, index) == (index in shared), index
    assert with_full_digests("12", [WHOLE, WHOLE]).count(WHOLE.digest) == 2  # and each once in a card
    assert joined_digests(with_full_digests("12", [WHOLE, WHOLE]), []) == f"12 + {WHOLE.digest}"


def test_a_card_of_an_earlier_version_names_parts_by_their_own_digest_alone():
    assert shares_samples(FOLDS[0, 1].digest, FOLDS[0, 1]) and not shares_samples(FOLDS[0, 1].digest, WHOLE)


def test_a_model_in_a_few_words(tmp_path):
    facts = about_model(tmp_path, CARD)
    assert facts["Model"] == "single b" and facts["Method"] == "coral" and facts["Image size"] == "112 px"
    assert about_model(tmp_path, ENSEMBLE)["Model"] == "ensemble of 2 x dual b c, dual b b"
    assert about_data("https://h/d?token=abc", "f" * 64, 1234) == f"https://h/d?*** (1,234 samples, digest {'f' * 12})"
