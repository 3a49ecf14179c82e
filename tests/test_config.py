"""A run's configuration: what it reads, and the one line it answers when it cannot."""

import math
import operator
import os
import re
from copy import deepcopy
from dataclasses import asdict, fields, is_dataclass, replace
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import yaml

from mivolo_lite.config import REGISTRIES, help_text, read_run_config
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.loading.config import DataSetConfig
from mivolo_lite.loading.transforms import PRESETS, AugmentConfig
from mivolo_lite.methods import METHODS
from mivolo_lite.models import MODELS, backbone
from mivolo_lite.training.run_config import RunConfig, dump_run_config, named_options

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
        ("[{path: a, weight: 2}, s3://b/c]", [DataSetConfig("a", 2.0), DataSetConfig("s3://b/c", 1.0)]),
        ('["s3://b/c"]', [DataSetConfig("s3://b/c", 1.0)]),
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
    assert alone.train == "t" and alone.train_sets == [DataSetConfig("t")]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_one_word_away(tmp_path, name):
    file = write(tmp_path / "a.yaml", "run: r\nmethod: {name: classification, decode: median}\n")
    assert read_run_config([*file, "--method", name]).method.name == name


def test_another_method_drops_the_options_of_the_one_it_replaces(tmp_path):
    file = write(tmp_path / "a.yaml", "run: r\nmethod: {name: classification, decode: median}\n")
    assert read_run_config([*file, "--method", "regression"]).method.loss == "l1"


@pytest.mark.parametrize("names", zip_longest(METHODS, MODELS), ids=str)
def test_help_says_what_every_option_does_inherited_ones_too(names):
    chosen = {kind: name for kind, name in zip(("method", "model"), names, strict=True) if name}
    text = help_text([word for kind, name in chosen.items() for word in (f"--{kind}", name)])
    for kind, name in chosen.items():
        for option in [*fields(REGISTRIES[kind][name].Config), "name"]:
            _, found, words = text.partition(f"--{kind}.{getattr(option, 'name', option)} ")
            assert found and not re.match(r"\S+\s+\((type|default)", words), words[:200]


def test_the_order_of_options_on_the_command_line_does_not_matter(tmp_path):
    file = write(tmp_path / "a.yaml", "run: r\nmodel: {name: dual, face: resnet18}\n")
    model = read_run_config([*file, "--model.backbone", "resnet34", "--model", "single"]).model
    assert (model.name, model.backbone) == ("single", "resnet34")
    assert read_run_config(["--model", "single", *file]).model.face == "resnet18"  # a later file still wins


@pytest.mark.parametrize(
    "text, overrides, parts",
    [
        ("optim: {learning_rate: 1}", [], ["a.yaml", "optim.learning_rate", "optim."]),
        ("epochs: 3", [], ["a.yaml", "epochs", "optim.epochs"]),
        ("optim: {epochs: three}", [], ["a.yaml", "optim.epochs", "three"]),
        ("optim: {lr: -1}", [], ["a.yaml", "optim.lr", "-1"]),
        ("optim: 3", [], ["a.yaml", "optim"]),
        ("", ["--data.val", "{path: v, weight: 2}"], ["command line", "data: val", "weight 2"]),
        ("data: {augment: {flip: 1.5}}", [], ["a.yaml", "data.augment.flip", "1.5"]),
        ("data: {augment: {erase: 2}}", [], ["a.yaml", "data.augment.erase", "2"]),
        ("data: {augment: {crop_scale: 0}}", [], ["a.yaml", "data.augment.crop_scale", "0"]),
        ("data: {augment: {randaugment_ops: -1}}", [], ["a.yaml", "data.augment.randaugment_ops", "-1"]),
        ("data: {augment: {randaugment_magnitude: 31}}", [], ["a.yaml", "randaugment_magnitude", "31"]),
        ("", ["--optim.global_batch", "3.5"], ["command line", "optim.global_batch", "3.5"]),
        ("", ["--train.precision", "fp8"], ["command line", "train.precision", "fp8"]),
        ("optim: {learning_rate: 1}", [], ["optim.learning_rate is not an option; did you mean optim.lr?"]),
        ("", ["--batch_size", "8"], ["batch_size is not an option; did you mean optim.global_batch?"]),
        ("", ["--method", "corall"], ["command line", "corall", "did you mean coral?"]),
        ("", ["--method", "colar"], ["did you mean coral?"]),
        (
            "method: coral",
            ["--method.sigma", "3"],
            ["command line: method.sigma is not an option of coral", "there are method.decode, method.importance"],
        ),
        ("method: dldl", ["--method.sigm", "3"], ["method.sigm is not an option of dldl; did you mean method.sigma?"]),
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
        ("", ["--data.train", "[{class_path: mivolo_lite.cli.main}]"], ["command line", "data.train", "class_path"]),
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


def test_of_several_base_files_the_later_ones_win(tmp_path):
    write(tmp_path / "a.yaml", "optim: {lr: 1, epochs: 2}\ndata: {train: t, val: v}\n")
    write(tmp_path / "b.yaml", "optim: {lr: 3}\nmodel: dual\n")
    config = read_run_config(write(tmp_path / "c.yaml", "base: [a.yaml, b.yaml]\nrun: r\noptim: {epochs: 4}\n"))
    assert (config.optim.lr, config.optim.epochs, config.model.name, config.data.val) == (3, 4, "dual", "v")


@pytest.mark.parametrize(
    "later, val",
    [
        ("{path: b}", DataSetConfig("b")),
        ("{path: b, folds: [1]}", DataSetConfig("b", folds=(1,))),
        ("{path: a}", DataSetConfig("a", folds=(4,))),
        ("b", "b"),
    ],
)
def test_another_data_set_drops_the_folds_of_the_one_it_replaces(tmp_path, later, val):
    first = write(tmp_path / "a.yaml", "run: r\ndata: {val: {path: a, folds: [4]}}\n")[:2]
    write(tmp_path / "b.yaml", f"base: a.yaml\ndata: {{val: {later}}}\n")
    for words in ([*first, "--data.val", later], ["--config", f"{tmp_path}/b.yaml"]):
        assert read_run_config([*words, "--data.train", "t"]).data.val == val


def test_a_base_file_is_read_first_and_found_beside_the_file(tmp_path):
    write(tmp_path / "base.yaml", "optim: {lr: 1, epochs: 2}\n")
    (tmp_path / "deeper").mkdir()
    file = write(tmp_path / "deeper" / "a.yaml", "base: ../base.yaml\nrun: r\noptim: {lr: 3}\n")
    config = read_run_config(file)
    assert (config.optim.lr, config.optim.epochs) == (3, 2)
    write(tmp_path / "base.yaml", "optim: {lrr: 1}\n")
    with pytest.raises(UserError, match="base.yaml: optim.lrr"):
        read_run_config(file)


def test_a_base_may_be_the_packages(tmp_path):
    config = read_run_config(write(tmp_path / "a.yaml", "base: pkg:utkface\nrun: r\n"))
    assert (config.run, config.model.backbone) == ("r", "efficientnet_lite0")
    with pytest.raises(
        UserError, match=r"base pkg:utkfac: the package has no such configuration; did you mean utkface\?"
    ):
        read_run_config(write(tmp_path / "a.yaml", "base: pkg:utkfac\nrun: r\n"))


@pytest.fixture(scope="module")
def backbones():
    """Each backbone is made once: most configurations take the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbone, "create_without_classifier", cache(backbone.create_without_classifier))
        yield


@pytest.mark.usefixtures("backbones")
@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("configs/**/*.yaml")), ids=lambda path: path.name)
def test_every_shipped_configuration_reads_and_builds(path):
    config = read_run_config(["--config", str(path), "--run", "r", "--model.pretrained", "false"])
    assert config.data.train and config.data.val
    card = Card(named_options(config.model), named_options(config.method), asdict(config.ages), config.data.image_size)
    assert Estimator(card).inputs


def refused(argv) -> str:
    """The one line that a command line gets."""
    with pytest.raises(UserError) as error:
        read_run_config([str(word) for word in argv])
    message = str(error.value)
    assert "\n" not in message and len(message) < 500
    return message


@pytest.mark.parametrize(
    "text, parts",
    [
        ("optim: {lr: 1}\ntrain: {seed: 1}\noptim: {clip_norm: 1}\n", ["line 3", "optim", "line 1"]),
        ("data:\n  augment: {flip: 0,\n    flip: 1}\n", ["line 3", "flip", "line 2"]),
        ("tasks:\n- {name: a, kind: regression,\n   name: b}\n", ["line 3", "name"]),
        ("no: 1\n1: 2\n", ["line 2", "text"]),
        ("? [a]\n: 1\n", ["line 1", "text"]),
        ("a: &a [*a]\n", ["line 1", "reference"]),
        ("[" * 100_000, ["levels"]),
        ("a: " + "1" * 5000, ["YAML"]),
        ('run: "\\ud800"', ["line 1", "surrogate"]),
        ("run: !!python/object/apply:os.system [ls]", ["line 1", "python"]),
        ("optim.lr: 0.5", ["optim.lr", "optim: {lr: ...}"]),
        ("data: {augment: false}", ["data.augment", "options"]),
        ("model: {backbone: }", ["model.backbone", "empty"]),
        ("optim: {lr: }", ["optim.lr", "empty", "a number"]),
        ("base: [1]", ["base", "not a file"]),
        ("base: {a: b.yaml}", ["base", "not a file"]),
        ("base: a.yaml", ["base", "a.yaml"]),
        ("base: .", ["base", "directory"]),
        ("base: /dev/zero", ["base", "not a regular file"]),
        ("run: 3", ["run", "in quotes"]),
        ("tasks: [{class_path: mivolo_lite.cli.main}]", ["tasks", "class_path"]),
        ("tasks: [{name: a, classes: [x, y]}, {name: a, classes: [x, y]}]", ["tasks", "a"]),
        ("model: {name: {a: b}}", ["model", "not known"]),
        ("model: {backbone: resnet19}", ["model", "resnet19", "resnet18"]),
    ],
)
def test_yaml_that_is_no_configuration_is_one_line(tmp_path, text, parts):
    message = refused(write(tmp_path / "a.yaml", text))
    for part in ["a.yaml", *parts]:
        assert part in message, message


def test_references_are_bounded_before_they_are_expanded(tmp_path):
    lines = ["x0: &x0 {a: 1, b: 2}"]
    for level, form in enumerate(["k{0}: *x{1}"] * 9):
        items = ", ".join(form.format(place, level) for place in range(9))
        lines.append(f"x{level + 1}: &x{level + 1} {{{items}}}")
    assert "references" in refused(write(tmp_path / "a.yaml", "\n".join(lines)))
    merged = ["x0: &x0 {a: 1}", *(f"x{n + 1}: &x{n + 1} {{<<: [{', '.join([f'*x{n}'] * 9)}]}}" for n in range(9))]
    assert "references" in refused(write(tmp_path / "a.yaml", "\n".join(merged)))


def test_references_and_merges_of_a_reasonable_size_are_read_and_are_no_shared_objects(tmp_path):
    text = "run: r\noptim: {balance: &by {by: age}, dro: {<<: *by, by: gender}}\n"
    optim = read_run_config([*write(tmp_path / "a.yaml", text), "--optim.balance.power", "1"]).optim
    assert (optim.balance.by, optim.balance.power, optim.dro.by) == ("age", 1, "gender")


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_is_named(tmp_path, encoding):
    (tmp_path / "a.yaml").write_bytes("# caf\u00e9\nrun: r\n".encode(encoding))
    assert "a.yaml: line 1: not UTF-8" in refused(["--config", tmp_path / "a.yaml"])


def test_what_is_no_file_of_a_reasonable_size_is_neither_waited_for_nor_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large.yaml").write_bytes(b"#" * 2_000_000)
    assert "not a regular file" in refused(["--config", tmp_path / "pipe"])
    assert "not a regular file" in refused(["--config", "/dev/zero"])
    assert "irectory" in refused(["--config", tmp_path])
    assert "large.yaml" in refused(["--config", tmp_path / "large.yaml"])


@pytest.mark.parametrize(
    "section", ["optim:", "data:\n  augment:", "optim: {balance: }", "data: {cache: null}", "tasks:"]
)
@pytest.mark.parametrize("override", [[], ["--optim.lr", "2e-4"]])
def test_a_section_whose_lines_are_all_comments_changes_nothing(tmp_path, section, override):
    write(tmp_path / "base.yaml", "run: r\noptim: {epochs: 3, balance: {by: age}}\ndata: {augment: {flip: 0}}\n")
    alone = read_run_config([*write(tmp_path / "b.yaml", "base: base.yaml\n"), *override])
    emptied = read_run_config([*write(tmp_path / "a.yaml", f"base: base.yaml\n{section}\n"), *override])
    assert dump_run_config(emptied) == dump_run_config(alone)


def test_a_section_as_text_on_the_command_line_is_merged(tmp_path):
    file = write(tmp_path / "a.yaml", "run: r\ndata: {augment: {erase: 0}}\nmethod: {name: dldl, sigma: 3}\n")
    config = read_run_config([*file, "--data.augment", "{flip: 0}", "--method", "{decode: rounded}"])
    assert (config.data.augment.flip, config.data.augment.erase) == (0, 0)
    assert (config.method.name, config.method.sigma, config.method.decode) == ("dldl", 3, "rounded")
    assert "options" in refused([*file, "--optim", "0.5"])
    assert "twice" in refused([*file, "--data.augment", "{flip: 0, flip: 1}"])
    assert "options" in refused(write(tmp_path / "b.yaml", "run: r\noptim: 5\n") + ["--optim.lr", "1e-4"])


@pytest.mark.parametrize("word", ["no", "off", "'no'", "false"])
def test_no_and_off_are_what_the_documentation_calls_no(tmp_path, word):
    config = read_run_config(write(tmp_path / "a.yaml", f"run: r\nresume: {word}\ntrain: {{precision: {word}}}\n"))
    assert (config.resume, config.train.precision) == ("no", "no")


def test_yes_and_no_may_be_classes(tmp_path):
    text = "run: r\ntasks: [{name: smiling, classes: [no, yes]}]\ntrain: {compile: yes, channels_last: off}\n"
    config = read_run_config(write(tmp_path / "a.yaml", text))
    assert config.tasks[0].classes == ["no", "yes"]
    assert config.train.compile is True and config.train.channels_last is False


@pytest.mark.parametrize("word", ["none", "None", "null", "~"])
def test_none_is_null_where_an_option_may_be_null(tmp_path, word):
    file = write(tmp_path / "a.yaml", "run: r\noptim: {micro_batch: 4}\nmodel: {weights: w}\n")
    config = read_run_config([*file, "--optim.micro_batch", word, "--model.weights", word])
    assert config.optim.micro_batch is None and config.model.weights is None
    assert "a whole number from 1" in refused([*file, "--optim.global_batch", word])


@pytest.mark.parametrize("words, seed", [([], 0), (["--train.seed", "3"], 3), (["--train", "{seed: 4}"], 4)])
def test_a_path_to_learn_from_may_name_the_seed(tmp_path, words, seed):
    text = "run: r\ninit_from: a/{seed}/best\noptim: {teachers: ['b-{seed}', c]}\nmodel: {weights: 'w{seed}{seed}'}\n"
    config = read_run_config([*write(tmp_path / "a.yaml", text), *words])
    assert config.init_from == f"a/{seed}/best" and config.optim.teachers == [f"b-{seed}", "c"]
    assert config.model.weights == f"w{seed}{seed}"
    text = dump_run_config(config)
    assert read_run_config([*write(tmp_path / "b.yaml", text), "--train.seed", "5"]).init_from == f"a/{seed}/best"
    assert read_run_config(
        [*write(tmp_path / "a.yaml", "run: r"), *words, "--optim.teachers", "[b-{seed}]"]
    ).parents == [f"b-{seed}"]


def test_the_seed_names_no_folder_of_a_run_and_is_checked_as_ever(tmp_path):
    file = write(tmp_path / "a.yaml", "run: runs/{seed}\ninit_from: '{seed}/best'\n")
    assert f"{tmp_path}/a.yaml: run: {{seed}} is for init_from, optim.teachers and weights" in refused(file)
    assert "command line: train.seed: 'x' is not a whole number" in refused([*file, "--run", "r", "--train.seed", "x"])


def test_paths_are_expanded_as_a_shell_would(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SCRATCH", "/scratch")
    text = """
run: ~/runs/x
init_from: $SCRATCH/old/best
data: {train: [{path: ~/a}, 's3://bucket/$SCRATCH'], val: '${SCRATCH}/val', cache: {folder: $SCRATCH/cache}}
model: {weights: ~/w.pth}
"""
    (tmp_path / "a.yaml").write_text(text)
    config = read_run_config(["--config", str(tmp_path / "a.yaml")])
    assert (config.run, config.init_from, config.data.val) == ("/home/me/runs/x", "/scratch/old/best", "/scratch/val")
    assert [each.path for each in config.data.train] == ["/home/me/a", "s3://bucket//scratch"]
    assert (config.data.cache.folder, config.model.weights) == ("/scratch/cache", "/home/me/w.pth")
    assert read_run_config(["--config", str(tmp_path / "a.yaml"), "--run=~/y"]).run == "/home/me/y"


@pytest.mark.parametrize(
    "key, value, part",
    [
        ("run", "s3://bucket/x", "URL"),
        ("run", "file:///x", "URL"),
        ("init_from", "https://host/best", "URL"),
        ("data.cache.folder", "s3://bucket/x", "URL"),
        ("run", "$NOT_SET_ANYWHERE/x", "$NOT_SET_ANYWHERE is not set"),
        ("data.train", "${NOT_SET_ANYWHERE}/x", "is not set"),
        ("run", "~nobody_here/x", "no user"),
        ("run", "a\0b", "NUL"),
        ("data.val", "a\udc80", "text"),
    ],
)
def test_a_path_that_no_shell_would_expand_is_refused(tmp_path, key, value, part):
    message = refused([*write(tmp_path / "a.yaml", "run: r"), f"--{key}", value])
    assert key in message and part in message and "command line" in message


def leaves(kind=RunConfig, prefix=""):
    """Every option of a run by its dotted key, with its type."""
    for option in fields(kind):
        if is_dataclass(option.type):
            yield from leaves(option.type, f"{prefix}{option.name}.")
        elif option.type is not Any:
            yield f"{prefix}{option.name}", option.type


OPTIONS = {("", key): kind for key, kind in leaves()}
for section, registry in (("model", MODELS), ("method", METHODS)):
    of_config = {cls.Config: f"--{section}={name}" for name, cls in registry.items()}  # all MiVOLOs share one
    OPTIONS |= {
        (choice, key): kind for config, choice in of_config.items() for key, kind in leaves(config, f"{section}.")
    }
NASTY = [
    *(
        None,
        [],
        {},
        [1],
        {"a": 1},
        "",
        " ",
        "\n",
        "None",
        "nan",
        "-.inf",
        "1e400",
        "1e-400",
        "0x10",
        "1_0",
        "\u0663",
        "a\tb",
    ),
    *(math.nan, math.inf, -math.inf, -1, -0.5, 0, 0.0, 1e308, 5e-324, 10**30, -(10**30), 2**63, True, False),
    *(
        "no",
        "off",
        "~x",
        "{",
        "[",
        "!!python/name:os.system",
        "&a",
        "*a",
        "a: b",
        "-",
        "class_path: os.system",
        "x" * 5000,
    ),
    {"class_path": "os.system", "init_args": {"command": "true"}},
]


@pytest.mark.slow
@pytest.mark.parametrize("choice, key", OPTIONS, ids=lambda value: value.strip("-"))
def test_every_option_takes_a_nasty_value_or_refuses_it_in_one_line(tmp_path, choice, key):
    kind = OPTIONS[choice, key]
    given = {"run": "r", "data": {"train": "t", "val": "v"}}
    for value in NASTY:
        layer = deepcopy(given)
        *sections, name = key.split(".")
        inner = layer
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[name] = value
        (tmp_path / "a.yaml").write_text(yaml.safe_dump(layer))
        try:
            config = read_run_config(["--config", str(tmp_path / "a.yaml"), *filter(None, [choice])])
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000
            assert name in str(error) or "model backbone" in str(error), error
            continue
        read = operator.attrgetter(key)(config)
        if isinstance(read, float | int):
            assert math.isfinite(read) and abs(read) < 1e39, (key, value)
        assert kind is not str or isinstance(read, str)
        dump_run_config(config)


def test_augmentation_by_the_name_of_a_preset(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("data: {train: t, val: v, augment: light}\nrun: r\n")
    config = read_run_config(["--config", str(file)])
    assert config.data.augment == PRESETS["light"] != PRESETS["medium"] == AugmentConfig()
    words = ["--config", str(file), "--data.augment", "strong", "--data.augment.rotate", "10"]
    assert read_run_config(words).data.augment == replace(PRESETS["strong"], rotate=10.0)
    assert read_run_config(["--config", str(file), "--data.augment.flip", "0"]).data.augment.flip == 0
    with pytest.raises(UserError, match="command line: data.augment: 'strog' is no preset; did you mean strong"):
        read_run_config(["--config", str(file), "--data.augment", "strog"])


@pytest.mark.parametrize("written, age", [("070", 70), ("0x10", 16), ("1_00", 100), ("90.0", 90)])
def test_a_number_means_the_same_in_a_file_and_on_the_command_line(written, age, tmp_path):
    """YAML 1.1 reads 070 as 56."""
    (tmp_path / "a.yaml").write_text(f"run: r\ndata: {{train: t, val: v}}\nages: {{max_age: {written}}}\n")
    assert read_run_config(["--config", f"{tmp_path}/a.yaml"]).ages.max_age == age
    (tmp_path / "b.yaml").write_text("run: r\ndata: {train: t, val: v}\noptim: {epochs: 1:30}\n")
    with pytest.raises(UserError, match="optim.epochs: '1:30' is not a number"):
        read_run_config(["--config", f"{tmp_path}/b.yaml"])
