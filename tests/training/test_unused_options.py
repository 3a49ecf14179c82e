"""Options that change nothing are named, and those that change something are not."""

import pytest

from mivolo_lite.config import read_run_config
from mivolo_lite.package_files import package_configs
from mivolo_lite.training.unused_options import unused_options

FREEZE = ["--train.freeze", "[stem]"]


def unused(*words):
    return list(unused_options(read_run_config(["--run", "r", "--data.train", "t", "--data.val", "v", *words])))


@pytest.mark.parametrize(
    "words, expected",
    [
        (["--data.mixup.prob", "0.5"], "data.mixup.prob: nothing is mixed; give mixup_alpha or cutmix_alpha as well"),
        (["--data.mixup", "{mixup_alpha: 1, switch_prob: 0.1}"], "data.mixup.switch_prob: takes both"),
        (["--train.freeze_epochs", "2"], "train.freeze_epochs: nothing is frozen; give train.freeze as well"),
        ([*FREEZE, "--train.freeze_epochs", "10"], "train.freeze_epochs 10: nothing thaws in 10 epochs"),
        (["--optim.teacher_weight", "2"], "optim.teacher_weight: there are no optim.teachers"),
        (["--optim.teachers", "[x]", "--optim.teacher_weight", "0"], "optim.teachers: optim.teacher_weight is 0"),
        (["--data.stream_samples", "9"], "data.stream_samples: data.reader index counts the samples"),
        (["--optim.schedule", "constant", "--optim.min_lr", "0"], "optim.min_lr: optim.schedule constant has no such"),
        (["--train.patience", "10"], "train.patience 10: the run has no more evaluations"),
        (["--train.patience", "5", "--train.eval_every", "2"], "train.patience 5: the run has no more evaluations"),
        (["--data.mixup", "{mixup_alpha: 1, off_epoch: 10}"], "data.mixup.off_epoch 10: the training ends after 10"),
        (
            ["--optim.gender_smoothing", "0.1", "--optim.gender_weight", "0"],
            "optim.gender_smoothing: optim.gender_weight is 0",
        ),
        (["--optim.balance.power", "1"], "optim.balance.power: give optim.balance.by as well"),
        (["--optim.dro.penalty", "1"], "optim.dro.penalty: give optim.dro.by as well"),
        (["--optim.power", "2"], "optim.power: optim.schedule cosine has no such option"),
        (["--optim.schedule", "step"], "optim.schedule step: the learning rate does not fall in 10 epochs"),
        (
            ["--optim.schedule", "multistep", "--optim.decay_milestones", "[12, 11]"],
            "optim.schedule multistep: the learning rate does not fall in 10 epochs",
        ),
        (["--optim.swa_start", "9.5"], "optim.swa_start 9.5: only the last evaluation comes after it"),
        (
            ["--optim.swa_start", "0", "--train.eval_every", "20"],
            "optim.swa_start 0: only the last evaluation comes after it",
        ),
    ],
)
def test_what_changes_nothing_is_named(words, expected):
    (sentence,) = unused(*words)
    assert sentence.startswith(expected)


@pytest.mark.parametrize(
    "words",
    [
        ["--data.mixup", "{mixup_alpha: 1, prob: 0.5, off_epoch: 3}"],
        ["--data.mixup", "{mixup_alpha: 1, cutmix_alpha: 1, switch_prob: 0.1}"],
        ["--data.mixup", "{mixup_alpha: 1, off_epoch: 12}", "--data.train", "[a, {path: b, weight: 3}]"],
        ["--data", "{reader: stream, stream_samples: 9}"],
        ["--train.patience", "9"],
        ["--train.patience", "4", "--train.eval_every", "2"],
        [*FREEZE, "--train.freeze_epochs", "9"],
        ["--optim.schedule", "multistep", "--optim.decay_milestones", "[12, 9]", "--optim.decay_rate", "0.5"],
        ["--optim.balance", "{by: age, power: 1}"],
        ["--optim.swa_start", "9"],
        ["--optim.swa_start", "9.5", "--train.eval_every", "0.5"],
    ],
)
def test_what_changes_something_is_not(words):
    assert not unused(*words)


@pytest.mark.parametrize("name", package_configs())
def test_the_packages_configurations_have_none(name):
    assert not unused("--config", f"pkg:{name}")
