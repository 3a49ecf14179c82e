"""Ranks that were given different work end before the first step."""

import os
from types import SimpleNamespace

import pytest

from mivolo_lite.card import Card
from mivolo_lite.cli import main
from mivolo_lite.distributed import agreement
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from tests.training.forked_ranks import run_launched
from tests.training.launching import arguments


@pytest.mark.parametrize(
    "own, message",
    [
        ({"optim.lr": 0.1, "train.seed": 0}, None),
        ({"optim.lr": 0.2, "train.seed": 0}, "rank 1: optim.lr is 0.1 on rank 0, 0.2 here; start all ranks"),
        ({"optim.lr": 0.1}, "train.seed is 0 on rank 0, None here"),
        ({"optim.lr": 0.1, "train.seed": 0, "optim.ema": 0.9}, "optim.ema is None on rank 0, 0.9 here"),
    ],
)
def test_what_differs_is_named(own, message, monkeypatch):
    monkeypatch.setattr(agreement, "broadcast_object_list", lambda _: [{"optim.lr": 0.1, "train.seed": 0}])
    monkeypatch.setattr(agreement, "gather_object", lambda own: own)
    rank_1 = SimpleNamespace(process_index=1)
    if message is None:
        agreement.require_agreement(own, rank_1)
    else:
        with pytest.raises(UserError, match=message):
            agreement.require_agreement(own, rank_1)


def run_each(*words_of_ranks):
    main(words_of_ranks[int(os.environ["RANK"])])


@pytest.mark.slow
def test_two_ranks_with_other_options_or_data_do_not_train(people, tmp_path):
    options = {"data.train": people / "train", "data.val": people / "val", "data.image_size": 32, "data.workers": 0}
    options |= {"model.backbone": "test_vit", "optim.global_batch": 10, "run": tmp_path / "run"}
    first = ["train", *arguments(options)]
    for other, said in (
        ({"resume": "auto"}, "rank 1: resume is no on rank 0, auto here"),
        ({"data.train": people / "val"}, "rank 1: data.train is "),
    ):
        codes, output = run_launched("ddp", 2, run_each, (first, ["train", *arguments(options | other)]), tmp_path)
        assert codes == [2, 2] and output.count(f"mivolo-lite: launch: {said}") == 2, output


@pytest.mark.slow
@pytest.mark.parametrize("command", ["evaluate", "calibrate"])
def test_two_ranks_with_other_data_do_not_evaluate(command, people, tmp_path):
    model = {"name": "single", "backbone": "test_vit"}
    Estimator(Card(model, {"name": "regression"}, {"min_age": 0, "max_age": 100}, 32)).save(tmp_path / "model")
    words = [
        command,
        *arguments({"checkpoint": tmp_path / "model", "out": tmp_path / "out", "workers": 0}),
        "--data",
    ]
    codes, output = run_launched("ddp", 2, run_each, ([*words, f"{people}/val"], [*words, f"{people}/train"]), tmp_path)
    assert codes == [2, 2] and output.count("mivolo-lite: launch: rank 1: data is ") == 2, output
