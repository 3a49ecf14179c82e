"""A new run may start from everything that another one learnt."""

import pytest
import torch
from safetensors.torch import load_file

from mivolo_lite.cli import main
from mivolo_lite.config import read_run_config
from mivolo_lite.methods.lds import smoothed_weights
from mivolo_lite.training.loop import Trainer


@pytest.fixture
def words(people):
    """A small run's options, without its folder."""
    return [
        "--data.train", f"{people}/train", "--data.val", f"{people}/val", "--model.backbone", "test_resnet",
        "--method.name", "regression", "--data.image_size", "32", "--data.workers", "0", "--optim.global_batch", "16",
        "--optim.epochs", "1",
    ]  # fmt: skip


def test_a_run_starts_from_anothers_weights_heads_included(words, tmp_path):
    main(["train", "--run", f"{tmp_path}/first", *words])
    learnt = load_file(tmp_path / "first" / "best" / "model.safetensors")
    second = Trainer(read_run_config(["--run", f"{tmp_path}/second", "--start", f"{tmp_path}/first/best", *words]))
    state = second.estimator.state_dict()
    assert state.keys() == learnt.keys() and all(state[name].equal(learnt[name]) for name in learnt)
    assert second.state.step == 0
    second.journal.close()
    second.heartbeat.stop()


def test_its_loss_weighs_the_ages_of_its_own_data(words, tmp_path):
    main(["train", "--run", f"{tmp_path}/first", *words])  # without weights, as a converted MiVOLO
    weighted = ["--method.lds", "true", "--start", f"{tmp_path}/first/best", *words]
    second = Trainer(read_run_config(["--run", f"{tmp_path}/second", *weighted]))
    weight = second.estimator.method.age_weight
    second.journal.close()
    second.heartbeat.stop()
    counts = torch.from_numpy(second.reader.age_counts(0, 120))
    assert weight.equal(smoothed_weights(counts, "gaussian", 5, 2.0, "sqrt_inv")) and weight.std() > 0.1


@pytest.mark.parametrize(
    "options, message",
    [
        (["--start", "nowhere"], "nowhere: no model.safetensors here"),
        (["--start", "first/best", "--method.name", "coral"], "do not fit the model; missing: method.scaled_bias"),
    ],
)
def test_what_does_not_fit_is_one_line(words, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    main(["train", "--run", "first", *words])
    with pytest.raises(SystemExit):
        main(["train", "--run", "second", *words, *options])
    error = capsys.readouterr().err
    assert error.startswith("mivolo-lite: ") and error.count("\n") == 1 and message in error
