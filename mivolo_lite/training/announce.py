"""Messages before a run's first step and after its last."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mivolo_lite.evaluation.about import was_trained_on
from mivolo_lite.evaluation.verification import MIN_PAIRS
from mivolo_lite.labels import GENDERS
from mivolo_lite.loading.readers import StreamReader
from mivolo_lite.shards.exclude import count_left_out
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.system import command_line
from mivolo_lite.training.label_checks import count_labels
from mivolo_lite.training.run_config import RunConfig
from mivolo_lite.training.run_summary import error_in_words
from mivolo_lite.training.unused_options import unused_options
from mivolo_lite.wording import first_few

if TYPE_CHECKING:
    from mivolo_lite.training.loop import Trainer


def announce_start(trainer: "Trainer") -> None:
    """Log the model, the data, the steps and the launch of a run that starts or resumes."""
    config, log, state = trainer.config, trainer.logger.log, trainer.state
    log(_in_one_line(trainer))
    if config.train.channels_last and not trainer.estimator.channels_last:
        log("train.channels_last: off, since torch on CPUs fails at this model's convolutions in it")
    if trainer.freeze.names:
        log(_frozen_in_words(trainer))
    if config.data.workers == "auto":
        log(f"data.workers: {trainer.data.workers} for each process")
    if trainer.labels:
        log(f"labels to learn from: {', '.join(f'{count} {name}' for name, count in trainer.labels.items())}")
    for line in _not_learnt(trainer):
        log(line)
    for warning in _warnings(trainer):
        log(f"warning: {warning}")
    if config.data.exclude:
        indexes = [*trainer.reader.indexes, trainer.val_index]
        left_out = ", ".join(f"{count_left_out(index)} of {index.folder}" for index in indexes)
        log(f"data.exclude {config.data.exclude}: samples left out: {left_out}")
    for folder, passes in trainer.reader.passes(round(trainer.progress.end * trainer.plan.global_batch)).items():
        log(f"{folder}: {passes:.3g} passes")
    if trainer.resumed:
        log(f"resumed at step {state.step}, {state.samples_seen} samples seen")
    if trainer.changed:
        changes = [f"{name} {now} (was {then})" for name, (then, now) in trainer.changed.items()]
        log(f"warning: options have changed since the last start: {first_few(changes, 10)}")


def _frozen_in_words(trainer: "Trainer") -> str:
    freeze = trainer.freeze
    frozen, parameters = freeze.parameters / 1e6, trainer.parameters / 1e6
    until = "" if freeze.epochs is None else f" before epoch {freeze.epochs:g}"
    return f"train.freeze: {frozen:.2f} of {parameters:.2f} M parameters do not learn{until}"


def _not_learnt(trainer: "Trainer") -> Iterator[str]:
    for name in sorted(trainer.unlearnt):
        is_left_out = name == "gender" and not trainer.estimator.card.gender
        answers = "the model does not estimate it" if is_left_out else "its head stays as it began"
        yield f"{name}: nothing to learn it from, or of weight 0, so {answers}"


def _warnings(trainer: "Trainer") -> Iterator[str]:
    """Warnings about options and data that are allowed but seldom intended."""
    yield from _unseen_inputs(trainer.estimator.inputs, trainer.reader.indexes)
    yield from _absent_classes(trainer)
    yield from _option_warnings(trainer)
    yield from _data_warnings(trainer)


def _option_warnings(trainer: "Trainer") -> Iterator[str]:
    data, optim = trainer.config.data, trainer.config.optim
    if trainer.plan.global_batch > trainer.reader.samples:
        yield (
            f"optim.global_batch {trainer.plan.global_batch}: more than the {trainer.reader.samples} training samples, "
            "so each step has some more than once; give a smaller one"
        )
    for option in ("drop_face", "drop_body"):
        if getattr(data, option) and len(trainer.estimator.inputs) == 1:
            yield f"data.{option}: nothing is hidden from a model with one input"
    if optim.warmup_epochs >= optim.epochs:
        yield f"optim.warmup_epochs {optim.warmup_epochs:g}: the learning rate rises to the end, after {optim.epochs:g}"
    if trainer.config.train.freeze and begins_random(trainer.config):
        yield "train.freeze: the frozen parts have random weights; give trained ones, by init_from or model.pretrained"
    yield from unused_options(trainer.config)


def begins_random(config: RunConfig) -> bool:
    """Whether a run's weights are random, if its model has options to load some."""
    sources = [value for name, value in vars(config.model).items() if name == "pretrained" or name.endswith("weights")]
    return bool(sources) and not any(sources) and not config.init_from


def _data_warnings(trainer: "Trainer") -> Iterator[str]:
    validation, training = trainer.val_index, {index.digest: index for index in trainer.reader.indexes}
    if validation.digest in training:
        yield f"data.val {validation.folder} is trained on as well, so errors on other images are larger"
    val = trainer.config.data.val_set
    for parent in trainer.config.parents:
        if was_trained_on(parent, val.path, validation):
            yield f"{parent} was trained on data.val {val}, so errors on other images are larger"
    span, size = trainer.estimator.method.span, trainer.config.data.image_size
    for index in (training | {validation.digest: validation}).values():
        lowest, highest = index.columns["age_lo"], index.columns["age_hi"]
        if outside := int(((highest < span.min_age) | (lowest > span.max_age)).sum()):
            ages = f"`ages` are {span.min_age} to {span.max_age}"
            yield f"{index.folder}: {outside} ages that the model cannot estimate; {ages}"
        if (crop_size := index.info["crop_policy"].get("crop_size", size)) < size:
            yield f"{index.folder}: crops of at most {crop_size} px, which data.image_size {size} enlarges"


def _unseen_inputs(inputs: Sequence[str], indexes: Sequence[ShardIndex]) -> Iterator[str]:
    """Warn of inputs that no training sample has: the model does not learn them. A stream's are unknown."""
    for name in inputs:
        if indexes and not any(index.has_image([name]).any() for index in indexes):
            yield f"no training sample has a {name}, so the model does not learn to estimate from one"


def _absent_classes(trainer: "Trainer") -> Iterator[str]:
    """Warn of genders and of classes of each task that no sample has, if samples have others."""
    reader = trainer.reader
    if isinstance(reader, StreamReader):  # its labels are unknown before they are read
        return
    columns = reader.tasks | {"gender": np.concatenate([index.columns["gender"] for index in reader.indexes])}
    classes = {"gender": list(GENDERS)} | {task.name: task.classes for task in trainer.config.tasks}
    for name, labels in classes.items():
        absent = [label for index, label in enumerate(labels) if not (columns[name] == index).any()]
        if 0 < len(absent) < len(labels) and name not in trainer.unlearnt:
            yield f"{name}: no training sample is {first_few(absent)}"


def _in_one_line(trainer: "Trainer") -> str:
    config, plan, launch, steps = trainer.config, trainer.plan, trainer.launch, trainer.progress.total_steps
    engine = f", {launch}" if launch.processes > 1 or launch.engine != "ddp" else ""
    return (
        f"{config.model.name} with {config.method.name}, {trainer.parameters / 1e6:.1f} M parameters; "
        f"{trainer.reader.samples} training and {len(trainer.val_index)} validation samples; "
        f"{steps} steps of {plan.global_batch} = {plan.micro_batch} x {plan.world_size} processes x "
        f"{plan.accumulation} micro-batches on {trainer.accelerator.device.type}{engine}"
    )


def announce_end(trainer: "Trainer") -> None:
    """Log the lowest error of a complete run, the folder of its weights, and the command that reports them."""
    best, error = trainer.folder.best, trainer.state.best_mae
    if math.isfinite(error):
        lowest = f"lowest validation error {error_in_words(error, _error_is_of_ages(trainer))}, its"
    else:
        lowest = f"{unmeasured(trainer)}; the latest"
    if left := trainer.progress.steps_left:
        patience, stale = trainer.config.train.patience, trainer.state.stale
        trainer.logger.log(
            f"train.patience {patience}: {stale} evaluations without a lower error; ends {left} steps early"
        )
    goodput = trainer.throughput.total()["goodput"]
    trainer.logger.log(f"complete: {lowest} weights in {best}; goodput {goodput:.0%}; a report of them:")
    trainer.logger.log(command_line(_report_command(trainer)))


def _error_is_of_ages(trainer: "Trainer") -> bool:
    """Whether ``validation_error`` is the MAE: the model learnt ages, and the validation data has some."""
    _, known = count_labels([trainer.val_index], trainer.estimator.inputs, {})
    return known["age"] > 0 and "age" not in trainer.unlearnt


def unmeasured(trainer: "Trainer") -> str:
    """Why ``best`` was not chosen by a validation error."""
    names = ", ".join(task.name for task in trainer.estimator.tasks if task.kind == "embedding")
    pairs = f", nor, for {names}, {MIN_PAIRS} pairs of images of one person and {MIN_PAIRS} of two" if names else ""
    return f"the validation error cannot be measured, as data.val has no age and no class to compare{pairs}"


def _report_command(trainer: "Trainer") -> Iterator[str]:
    """The command that evaluates the best weights on the samples that chose them."""
    data, out = trainer.config.data, trainer.folder.path / "evaluation"
    yield from ("mivolo-lite", "evaluate", "--checkpoint", f"{trainer.folder.best}")
    yield from ("--data", f"{trainer.val_index.folder}", "--out", f"{out}")
    if data.val_set.folds is not None:
        yield from ("--folds", f"{list(data.val_set.folds)}")
    if data.exclude:
        yield from ("--exclude", data.exclude)
