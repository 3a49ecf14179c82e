"""What a start tells another one by: the options of the configuration that changed."""

import pytest

from mivolo_lite.config import read_run_config
from mivolo_lite.training.run_config import changed_options, dump_run_config, shared_options

SGD = ["--optim.name", "sgd"]
MOMENTUM = ["--optim.options", "{momentum: 0.9}"]


def config(*words):
    return read_run_config(["--run", "r", "--data.train", "t", "--data.val", "v", *words])


@pytest.mark.parametrize(
    "then, now, expected",
    [
        ([*SGD, *MOMENTUM], [*SGD, *MOMENTUM, "--run", "s", "--resume", "auto"], {}),
        ([], ["--optim.lr", "0.5"], {"optim.lr": (0.001, 0.5)}),
        (SGD, [*SGD, *MOMENTUM], {"optim.options.momentum": (None, 0.9)}),
        ([*SGD, *MOMENTUM], SGD, {"optim.options.momentum": (0.9, None)}),
        (["--method", "coral"], ["--method", "corn"], {"method.name": ("coral", "corn")}),
    ],
)
def test_an_optimizers_own_options_count_also_where_they_were_not_set(then, now, expected, tmp_path):
    (tmp_path / "config.yaml").write_text(dump_run_config(config(*then)))
    assert changed_options(tmp_path / "config.yaml", config(*now)) == expected


@pytest.mark.parametrize(
    "words, are_shared",
    [
        (["--run", "other", "--data.train", "other", "--data.cache.folder", "other"], True),
        (["--model.pretrained", "false", "--model.weights", "other"], True),
        (["--optim.teachers", "[other]"], True),
        (["--optim.gender_weight", "3"], False),
        (["--optim.teacher_weight", "3"], False),
    ],
)
def test_nodes_may_have_files_of_their_own_but_no_options(words, are_shared):
    here = config("--model.pretrained", "false", "--model.weights", "w", "--optim.teachers", "[t]")
    there = config("--model.pretrained", "false", "--model.weights", "w", "--optim.teachers", "[t]", *words)
    assert (shared_options(here) == shared_options(there)) is are_shared
