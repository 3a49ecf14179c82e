"""A run's configuration: what it reads, and the one line it answers when it cannot."""

from dataclasses import asdict
from pathlib import Path

import pytest

from mivolo_lite.config import dump_run_config, named_options, read_run_config
from mivolo_lite.data.loader import TrainSet
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.methods import METHODS

REPOSITORY = Path(__file__).parents[1]


def write(path, text):
    path.write_text(text)
    return ["--config", str(path), "--data.train", "t", "--data.val", "v"]


def test_overrides_win_over_files_and_later_files_over_earlier(tmp_path):
    first = write(tmp_path / "a.yaml", "run: runs/a\noptim: {lr: 1e-3, epochs: 4}\n")
    second = write(tmp_path / "b.yaml", "optim: {lr: 2e-3, global_batch: 32}\n")
    config = read_run_config([*first, *second, "--optim.global_batch", "16", "--data.augment.flip=0"])
    assert (config.run, config.optim.lr, config.optim.epochs, config.optim.global_batch) == ("runs/a", 2e-3, 4, 16)
    assert config.data.augment.flip == 0


def test_the_resolved_configuration_reads_back_as_itself(tmp_path):
    config = read_run_config(write(tmp_path / "a.yaml", "run: r\nmethod: {name: regression, loss: huber}\n"))
    text = dump_run_config(config)
    assert dump_run_config(read_run_config(write(tmp_path / "b.yaml", text))) == text
    assert "huber" in text


@pytest.mark.parametrize(
    "text, expected",
    [
        ("[{path: a, weight: 2}, s3://b/c]", [TrainSet("a", 2.0), TrainSet("s3://b/c", 1.0)]),
        ('["s3://b/c"]', [TrainSet("s3://b/c", 1.0)]),
    ],
)
def test_training_data_may_be_a_list_in_a_file_and_on_the_command_line(tmp_path, text, expected):
    (tmp_path / "list.yaml").write_text(f"run: r\ndata: {{val: v, train: {text}}}\n")
    config = read_run_config(["--config", f"{tmp_path}/list.yaml"])
    assert config.data.train == expected
    assert read_run_config([*write(tmp_path / "a.yaml", "run: r"), "--data.train", text]).data.train == expected
    (tmp_path / "dumped.yaml").write_text(dump_run_config(config))
    assert read_run_config(["--config", f"{tmp_path}/dumped.yaml"]).data == config.data
    alone = read_run_config(["--config", f"{tmp_path}/list.yaml", "--data.train", "t"]).data
    assert alone.train == "t" and alone.train_sets == [TrainSet("t")]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_one_word_away(tmp_path, name):
    file = write(tmp_path / "a.yaml", "run: r\nmethod: {name: classification, decode: median}\n")
    assert read_run_config([*file, "--method", name]).method.name == name


def test_another_method_drops_the_options_of_the_one_it_replaces(tmp_path):
    file = write(tmp_path / "a.yaml", "run: r\nmethod: {name: classification, decode: median}\n")
    assert read_run_config([*file, "--method", "regression"]).method.loss == "l1"


@pytest.mark.parametrize(
    "text, overrides, parts",
    [
        ("optim: {learning_rate: 1}", [], ["a.yaml", "optim.learning_rate", "optim."]),
        ("epochs: 3", [], ["a.yaml", "epochs", "optim.epochs"]),
        ("optim: {epochs: three}", [], ["a.yaml", "optim.epochs", "three"]),
        ("optim: {lr: -1}", [], ["a.yaml", "optim.lr", "-1"]),
        ("optim: 3", [], ["a.yaml", "optim"]),
        ("data: {augment: {flip: 1.5}}", [], ["a.yaml", "data.augment.flip", "1.5"]),
        ("data: {augment: {erase: 2}}", [], ["a.yaml", "data.augment.erase", "2"]),
        ("data: {augment: {crop_scale: 0}}", [], ["a.yaml", "data.augment.crop_scale", "0"]),
        ("data: {augment: {randaugment_ops: -1}}", [], ["a.yaml", "data.augment.randaugment_ops", "-1"]),
        ("data: {augment: {randaugment_magnitude: 31}}", [], ["a.yaml", "randaugment_magnitude", "31"]),
        ("", ["--optim.global_batch", "3.5"], ["command line", "optim.global_batch", "3.5"]),
        ("", ["--train.precision", "fp8"], ["command line", "train.precision", "fp8"]),
        ("", ["--method", "corall"], ["command line", "corall", "did you mean coral?"]),
        ("model: {name: dul}", [], ["a.yaml", "dul", "dual"]),
        ("method: {name: regression, decode: median}", [], ["a.yaml", "method.decode"]),
        ("ages: {min_age: 50, max_age: 20}", [], ["a.yaml", "ages", "50", "20"]),
        ("", ["optim.lr", "3"], ["command line", "optim.lr"]),
        ("", ["--optim.lr"], ["command line", "optim.lr"]),
        ("", ["--data.train", "[{path: a, weight: 0}]"], ["command line", "data.train", "a: weight 0", "over 0"]),
        ("", ["--data.train", "[{path: a, weight: -1.5}]"], ["command line", "data.train", "weight -1.5"]),
        ("", ["--data.train", "[{path: a, weight: .nan}]"], ["command line", "data.train", "weight nan"]),
        ("", ["--data.train", "[{path: a, weight: true}]"], ["command line", "data.train", "weight True"]),
        ("", ["--data.train", "[{path: a, weight: two}]"], ["command line", "data.train", "weight 'two'"]),
        ("", ["--data.train", "[{pth: a}]"], ["command line", "data.train", "pth", "path: FOLDER"]),
        ("", ["--data.train", "[3]"], ["command line", "data.train", "3 is not a data set"]),
        ("run: r", ["--data.train", "[]"], ["data.train is missing"]),
        ("- 1", [], ["a.yaml"]),
        ("a: [", [], ["a.yaml", "YAML"]),
    ],
)
def test_a_mistake_is_one_line_that_names_where_and_what(tmp_path, text, overrides, parts):
    with pytest.raises(UserError) as error:
        read_run_config([*write(tmp_path / "a.yaml", text), *overrides])
    message = str(error.value)
    assert "\n" not in message and len(message) < 400
    for part in parts:
        assert part in message, message


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere.yaml: No such file"):
        read_run_config(["--config", str(tmp_path / "nowhere.yaml")])


@pytest.mark.parametrize("key", ["run", "data.train", "data.val"])
def test_what_has_no_sensible_default_must_be_said(key):
    given = {"run": "r", "data.train": "t", "data.val": "v"}
    del given[key]
    with pytest.raises(UserError, match=f"{key} is missing"):
        read_run_config([word for name, value in given.items() for word in (f"--{name}", value)])


def test_a_base_file_is_read_first_and_found_beside_the_file(tmp_path):
    write(tmp_path / "base.yaml", "optim: {lr: 1, epochs: 2}\n")
    (tmp_path / "deeper").mkdir()
    file = write(tmp_path / "deeper" / "a.yaml", "base: ../base.yaml\nrun: r\noptim: {lr: 3}\n")
    config = read_run_config(file)
    assert (config.optim.lr, config.optim.epochs) == (3, 2)
    write(tmp_path / "base.yaml", "optim: {lrr: 1}\n")
    with pytest.raises(UserError, match="base.yaml: optim.lrr"):
        read_run_config(file)


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("configs/**/*.yaml")), ids=lambda path: path.name)
def test_every_shipped_configuration_reads_and_builds(path):
    config = read_run_config(["--config", str(path), "--run", "r", "--model.pretrained", "false"])
    assert config.data.train and config.data.val
    card = Card(named_options(config.model), named_options(config.method), asdict(config.ages), config.data.image_size)
    assert Estimator(card).inputs
