"""Finds options that are set without effect: they belong to something that is off, or the training ends before."""

import math
from collections.abc import Iterator
from operator import attrgetter

from mivolo_lite.training.optim import OptimConfig
from mivolo_lite.training.run_config import RunConfig

_OF_SCHEDULES = {
    "decay_epochs": ("step",),
    "decay_milestones": ("multistep",),
    "plateau_patience": ("plateau",),
    "decay_rate": ("step", "multistep", "plateau"),
    "power": ("poly",),
    "min_lr": ("cosine", "linear", "poly", "tanh", "step", "multistep", "plateau"),
}
"""Options that only some schedules use."""


def unused_options(config: RunConfig) -> Iterator[str]:
    """A sentence for each option that is set without effect."""
    yield from _of_what_is_off(config)
    yield from _too_late(config)


def _of_what_is_off(config: RunConfig) -> Iterator[str]:
    optim, mixup = config.optim, config.data.mixup
    both = mixup.mixup_alpha and mixup.cutmix_alpha
    either = mixup.mixup_alpha or mixup.cutmix_alpha
    used = [
        (either, "nothing is mixed; give mixup_alpha or cutmix_alpha as well", "data.mixup.prob data.mixup.off_epoch"),
        (both, "takes both mixup_alpha and cutmix_alpha", "data.mixup.switch_prob"),
        (config.train.freeze, "nothing is frozen; give train.freeze as well", "train.freeze_epochs"),
        (optim.teachers, "there are no optim.teachers", "optim.teacher_weight"),
        (optim.teacher_weight, "optim.teacher_weight is 0", "optim.teachers"),
        (config.data.reader == "stream", "data.reader index counts the samples", "data.stream_samples"),
        (optim.gender_weight, "optim.gender_weight is 0", "optim.gender_smoothing"),
        (optim.balance.by != "none", "give optim.balance.by as well", "optim.balance.power optim.balance.cap"),
        (
            optim.dro.by != "none",
            "give optim.dro.by as well",
            "optim.dro.fewest optim.dro.step_size optim.dro.penalty optim.dro.adjustment",
        ),
    ]
    used += [
        (optim.schedule in schedules, f"optim.schedule {optim.schedule} has no such option", f"optim.{name}")
        for name, schedules in _OF_SCHEDULES.items()
    ]
    for is_used, reason, names in used:
        if not is_used:
            yield from (f"{name}: {reason}" for name in names.split() if _is_set(config, name))


def _is_set(config: RunConfig, name: str) -> bool:
    """Whether an option differs from its default."""
    section, _, option = name.rpartition(".")
    options = attrgetter(section)(config)
    return getattr(options, option) != getattr(type(options)(), option)


def _too_late(config: RunConfig) -> Iterator[str]:
    optim, train, mixup = config.optim, config.train, config.data.mixup
    if train.patience is not None and train.patience >= _evaluations(0, optim.epochs, train.eval_every):
        yield f"train.patience {train.patience}: the run has no more evaluations, so it does not end early"
    # With several data sets, one may have more passes than the run has epochs.
    if mixup.is_on and (mixup.off_epoch or 0) >= optim.epochs and len(config.data.train_sets) == 1:
        yield f"data.mixup.off_epoch {mixup.off_epoch}: the training ends after {optim.epochs:g} epochs"
    if train.freeze and train.freeze_epochs is not None and train.freeze_epochs >= optim.epochs:
        yield f"train.freeze_epochs {train.freeze_epochs:g}: nothing thaws in {optim.epochs:g} epochs"
    if _first_decay(optim) >= optim.epochs:
        yield f"optim.schedule {optim.schedule}: the learning rate does not fall in {optim.epochs:g} epochs"
    if optim.swa_start is not None and _evaluations(optim.swa_start, optim.epochs, train.eval_every) < 2:
        yield (
            f"optim.swa_start {optim.swa_start:g}: only the last evaluation comes after it, so nothing is averaged; "
            "give a lower one, or a lower train.eval_every"
        )


def _first_decay(optim: OptimConfig) -> float:
    """Passes over the data before the first decay of ``step`` and ``multistep``; otherwise 0."""
    return {"step": optim.decay_epochs, "multistep": min(optim.decay_milestones, default=0.0)}.get(optim.schedule, 0.0)


def _evaluations(start: float, epochs: float, every: float) -> int:
    """The number of evaluations after ``start`` passes over the data; the last one is at the end."""
    before_end = math.ceil(epochs / every) - 1
    return max(0, before_end - max(1, math.ceil(start / every)) + 1) + 1
