"""A new run may start from everything that another one learnt."""

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from mivolo_lite.card import Card
from mivolo_lite.cli import main
from mivolo_lite.config import read_run_config
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.evaluation.about import was_trained_on
from mivolo_lite.methods.lds import smoothed_weights
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.training.loop import Trainer


@pytest.fixture(scope="module")
def words(people):
    """A small run's options, without its folder."""
    return [
        "--data.train", f"{people}/train", "--data.val", f"{people}/val", "--model.backbone", "test_resnet",
        "--method.name", "regression", "--data.image_size", "32", "--data.workers", "0", "--optim.global_batch", "16",
        "--optim.epochs", "1",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def first(words, tmp_path_factory):
    """A finished run, which no test changes."""
    folder = tmp_path_factory.mktemp("first") / "run"
    main(["train", "--run", f"{folder}", *words])
    return folder


def without(prefixes, words):
    """The options whose names do not begin so, with their values."""
    return [word for at in range(0, len(words), 2) if not words[at].startswith(prefixes) for word in words[at : at + 2]]


def started(*words):
    """A trainer that is ready to train."""
    trainer = Trainer(read_run_config([str(word) for word in words]))
    trainer.logger.close()
    trainer.heartbeat.stop()
    return trainer


def test_an_ensemble_does_not_learn(words, tmp_path):
    Card({"name": "ensemble", "members": []}, {"name": "dldl"}, {"min_age": 0, "max_age": 100}, 32).save(tmp_path)
    with pytest.raises(UserError, match=f"{tmp_path}: is an ensemble, which does not learn; start from a member"):
        read_run_config(["--run", "x", "--init_from", f"{tmp_path}", *words])


@pytest.mark.slow
def test_a_run_starts_from_anothers_weights_heads_included(first, words, tmp_path):
    learnt = load_file(first / "best" / "model.safetensors")
    second = started("--run", tmp_path / "second", "--init_from", first / "best", *words)
    state = second.estimator.state_dict()
    assert state.keys() == learnt.keys() and all(state[name].equal(learnt[name]) for name in learnt)
    assert second.state.step == 0


@pytest.mark.slow
def test_its_card_also_names_the_data_of_what_it_started_from(first, words, people, tmp_path):
    shutil.copytree(first / "best", tmp_path / "moved")  # away from its run, as to another machine
    start = ["--run", tmp_path / "second", "--init_from", tmp_path / "moved", *words, "--data.train", f"{people}/val"]
    second = started(*start)
    digests = second.estimator.card.data_digest
    assert digests == f"{second.reader.digest} + {Card.load(tmp_path / 'moved').data_digest}"
    second.estimator.save(tmp_path / "tuned")
    train = ShardIndex.load(f"{people}/train")
    assert was_trained_on(tmp_path / "tuned", "elsewhere", train)


@pytest.mark.slow
def test_its_loss_weighs_the_ages_of_its_own_data(first, words, tmp_path):
    # The first has no weights of ages, as a converted MiVOLO.
    weighted = ["--method.lds", "true", "--init_from", f"{first}/best", *words]
    second = started("--run", tmp_path / "second", *weighted)
    weight = second.estimator.method.age_weight
    counts = torch.from_numpy(second.reader.age_counts(0, 120))
    assert weight.equal(smoothed_weights(counts, "gaussian", 5, 2.0, "sqrt_inv")) and weight.std() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    "options, message",
    [
        (["--init_from", "nowhere"], "nowhere: no model.safetensors here"),
        (["--model.backbone", "test_vit"], "was trained with model.backbone test_resnet, this run says test_vit"),
    ],
)
def test_what_does_not_fit_is_one_line(first, words, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["train", "--run", "second", *words, "--init_from", f"{first}", *options])
    error = capsys.readouterr().err
    assert error.startswith("mivolo-lite: ") and error.count("\n") == 1 and message in error


@pytest.mark.slow
@pytest.mark.parametrize(
    "options, change",
    [
        (["--method.name", "coral"], "method.name coral (regression)"),
        (["--method.normalise", "false"], "method.normalise False (True)"),
        (["--ages.max_age", "100", "--ages.min_age", "1"], "ages.min_age 1 (0), ages.max_age 100 (120)"),
    ],
)
def test_another_method_begins_with_a_new_head_and_says_so(first, words, tmp_path, capsys, options, change):
    learnt = load_file(first / "best" / "model.safetensors")
    words = [*words, *options]
    fresh = started("--run", tmp_path / "fresh", *words).estimator.state_dict()
    capsys.readouterr()
    second = started("--run", tmp_path / "second", "--init_from", first, *words)
    for name, tensor in second.estimator.state_dict().items():
        assert tensor.equal((fresh if name.startswith("method.") else learnt)[name]), name
    assert f"--init-from {first}: the head for ages begins anew: {change}\n" in capsys.readouterr().out


@pytest.mark.slow
def test_the_head_for_ages_of_a_checkpoint_that_learnt_none_begins_anew(first, words, tmp_path, capsys):
    estimator = Estimator.load(first / "best")
    estimator.card.age = False
    estimator.save(tmp_path / "recognition")
    second = started("--run", tmp_path / "second", "--init_from", tmp_path / "recognition", *words)
    assert "it learnt no ages, so the head for them begins anew" in capsys.readouterr().out
    learnt, state = estimator.state_dict(), second.estimator.state_dict()
    is_kept = {name: learnt[name].equal(state[name]) for name in learnt}
    assert not is_kept["method.head.weight"] and is_kept["gender_head.weight"] and second.estimator.card.age


@pytest.mark.slow
def test_a_convolutional_model_may_begin_with_another_image_size(first, words, tmp_path):
    learnt = load_file(first / "best" / "model.safetensors")
    larger = ["--run", f"{tmp_path}/second", *words, "--init_from", f"{first}", "--data.image_size", "48"]
    state = started(*larger).estimator.state_dict()
    assert all(state[name].equal(learnt[name]) for name in learnt)


@pytest.mark.slow
def test_a_failed_start_leaves_a_folder_that_the_next_one_takes(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["train", "--run", "run", *words, "--init_from", "nowhere"])
    main(["train", "--run", "run", *words])


@pytest.mark.slow
def test_it_starts_from_the_averaged_weights_of_a_checkpoint(words, tmp_path):
    main(["train", "--run", f"{tmp_path}/first", "--optim.ema_decay", "0.9", *words])
    (checkpoint,) = (tmp_path / "first" / "checkpoints").glob("step-*")
    ema, last = (load_file(checkpoint / f"{name}.safetensors") for name in ("ema", "model"))
    second = started("--run", tmp_path / "second", "--init_from", checkpoint, "--model.drop_rate", "0.1", *words)
    state = second.estimator.state_dict()
    assert all(state[name].equal(ema[name]) for name in ema)
    assert not all(state[name].equal(last[name]) for name in last)


TASK = ["--tasks", "[{name: group, classes: [A, B, C, D, E]}]"]


@pytest.mark.slow
def test_a_task_that_the_checkpoint_did_not_learn_gets_a_new_head(first, words, tmp_path):
    learnt = load_file(first / "best" / "model.safetensors")
    main(["train", "--run", f"{tmp_path}/second", "--init_from", f"{first}/best", *words, *TASK])
    second = started("--run", tmp_path / "third", "--init_from", first / "best", *words, *TASK)
    state = second.estimator.state_dict()
    assert state.keys() - learnt.keys() == {"heads.group.weight", "heads.group.bias"}
    assert all(state[name].equal(learnt[name]) for name in learnt)


@pytest.mark.slow
def test_a_new_task_gets_its_subnet_or_that_of_another(words, tmp_path):
    levels = ["--model.name", "multilevel", "--model.backbone", "test_resnet", "--model.width", "32"]
    words = [*levels, *without("--model.", words)]
    main(["train", "--run", f"{tmp_path}/first", *words])
    learnt = load_file(tmp_path / "first" / "best" / "model.safetensors")
    for subnet, fresh in (("look", {"heads.group", "subnets.look"}), ("age", {"heads.group"})):
        task = ["--tasks", f"[{{name: group, classes: [A, B, C, D, E], subnet: {subnet}}}]"]
        main(["train", "--run", f"{tmp_path}/{subnet}", "--init_from", f"{tmp_path}/first/best", *words, *task])
        weights = load_file(tmp_path / subnet / "best" / "model.safetensors")
        assert {".".join(name.split(".")[:2]) for name in weights.keys() - learnt.keys()} == fresh


def test_classes_in_another_order_are_refused(words, tmp_path, capsys):
    main(["train", "--run", f"{tmp_path}/first", *words, *TASK])
    other = ["--tasks", "[{name: group, classes: [B, A, C, D, E]}]"]
    with pytest.raises(SystemExit):
        main(["train", "--run", f"{tmp_path}/second", "--init_from", f"{tmp_path}/first/best", *words, *other])
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "was trained with classes ['A', 'B', 'C', 'D', 'E'] of group" in error


UNSTATED = ("--model.", "--method.", "--data.image_size")


def test_what_is_not_stated_is_the_checkpoints(words, tmp_path):
    main(
        ["train", "--run", f"{tmp_path}/first", *words, "--method.name", "coral"]
        + ["--ages.max_age", "90", "--model.drop_rate", "0.25"]
    )
    unstated = without(UNSTATED, words)
    config = read_run_config(["--run", f"{tmp_path}/second", "--init_from", f"{tmp_path}/first", *unstated])
    assert (config.model.name, config.model.backbone, config.model.drop_rate) == ("single", "test_resnet", 0.25)
    assert (config.method.name, config.ages.max_age, config.data.image_size) == ("coral", 90, 32)
    start = ["--run", "r", "--init_from", f"{tmp_path}/first", *unstated]
    stated = read_run_config([*start, "--model.drop_rate", "0.5", "--ages.max_age", "80"])
    assert (stated.model.backbone, stated.model.drop_rate, stated.ages.max_age) == ("test_resnet", 0.5, 80)


@pytest.mark.slow
def test_a_run_resumes_when_the_checkpoint_it_started_from_is_gone(words, tmp_path):
    main(["train", "--run", f"{tmp_path}/first", *words, "--ages.max_age", "90"])
    second = ["--run", f"{tmp_path}/second", "--init_from", f"{tmp_path}/first", "--resume", "auto"]
    second += without(UNSTATED, words)
    main(["train", *second])
    (tmp_path / "first").rename(tmp_path / "elsewhere")
    config = read_run_config(second)
    assert (config.method.name, config.ages.max_age, config.data.image_size) == ("regression", 90, 32)


def test_what_a_start_that_saved_nothing_began_with_does_not_count(words, tmp_path, monkeypatch):
    """Its folder has a configuration, but no checkpoint to resume; of one that has, the configuration counts."""
    monkeypatch.setenv("RUNS", f"{tmp_path}")
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("ages: {min_age: 0, max_age: 60}\nmethod: {name: coral}\n")
    model = {"name": "single", "backbone": "test_resnet"}
    Card(model, {"name": "dldl"}, {"min_age": 0, "max_age": 90}, 32).save(tmp_path)
    start = ["--run", "$RUNS/run", "--init_from", f"{tmp_path}", "--resume", "auto", *without(UNSTATED, words)]
    config = read_run_config(start)
    assert (config.method.name, config.ages.max_age) == ("dldl", 90)
    (run / "checkpoints/step-000000001").mkdir(parents=True)
    config = read_run_config(start)
    assert (config.method.name, config.ages.max_age) == ("coral", 60)


@pytest.mark.slow
def test_the_packages_own_checkpoint_is_called_default():
    """It gives the model, the method and the image size."""
    words = ["--config", "pkg:finetune", "--run", "r"]
    config = read_run_config(words)
    assert config.init_from == "default" and config.model.backbone == "efficientnet_lite0"
    assert config.method.name == Estimator.load("default").card.method["name"]
    assert config.data.image_size == Estimator.load("default").card.image_size


@pytest.mark.slow
def test_it_normalises_as_the_weights_were_trained_and_keeps_their_licence(first, words, tmp_path):
    """Also once it has resumed, when the checkpoint that it began from may be gone."""
    best = shutil.copytree(first / "best", tmp_path / "best")
    other = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    replace(Card.load(best), normalisation=other, licence="cc-by-nc-4.0", attribution="Ann").save(best)
    words = ["--run", f"{tmp_path}/second", "--init_from", str(best), "--resume", "auto", *words]
    main(["train", *words])
    shutil.rmtree(best)
    resumed = started(*words, "--model.name", "single")
    for card in (Card.load(tmp_path / "second" / "best"), resumed.estimator.card):
        assert (card.normalisation, card.licence, card.attribution) == (other, "cc-by-nc-4.0", "Ann")
    assert resumed.state.step > 0


@pytest.mark.slow
def test_tasks_that_the_run_does_not_learn_are_named(words, people, tmp_path, capsys):
    groups = ShardIndex.load(f"{people}/train").groups
    main(["train", "--run", f"{tmp_path}/first", *words, "--tasks", str([{"name": "group", "classes": groups}])])
    capsys.readouterr()
    started("--run", tmp_path / "second", "--init_from", tmp_path / "first", *words)
    line = f"--init-from {tmp_path}/first: tasks that this run does not learn are left out: group\n"
    assert line in capsys.readouterr().out
