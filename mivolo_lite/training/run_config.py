"""The typed options of a run, and their YAML."""

from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from mivolo_lite.credentials import without_credentials
from mivolo_lite.errors import UserError
from mivolo_lite.loading.config import DataConfig
from mivolo_lite.methods.interface import AgeSpan
from mivolo_lite.option_values import flat_options
from mivolo_lite.tasks import Task
from mivolo_lite.training.optim import OptimConfig
from mivolo_lite.training.options import TrainConfig
from mivolo_lite.yaml_file import read_yaml_file

_OF_OPTIMIZER = "optim.options."
"""The prefix of options that a configuration has only if they are set."""

_PLACES = ("run", "init_from", "data.train", "data.val", "data.exclude", "data.cache.", "optim.teachers")
"""Prefixes of options that may differ between nodes, since each has its own disks."""


@dataclass(kw_only=True)
class RunConfig:
    """A whole run.

    Attributes:
        run: folder of the run; must be new, or hold the run to resume.
        resume: ``auto`` resumes the run in the folder if there is one, ``no`` wants a new one.
        init_from: where a new run gets its weights from, heads included: a run's ``best``, a converted checkpoint or
            ``hf://user/name``. Model, method, ages and image size are the checkpoint's unless stated; the head of
            another method begins anew. ``{seed}`` in it, in ``optim.teachers`` and in the model's weights stands for
            ``train.seed``.
        ages: the ages that the model covers.
        tasks: what it learns in addition to age and gender.
        model: its ``name`` and options.
        method: its ``name`` and options.
    """

    run: str = ""
    resume: Literal["auto", "no"] = "no"
    init_from: str = ""
    data: DataConfig
    model: Any
    method: Any
    ages: AgeSpan
    optim: OptimConfig
    train: TrainConfig
    tasks: list[Task] = field(default_factory=list)

    @property
    def parents(self) -> list[str]:
        """The checkpoints that the run learns from: its initial weights, and its teachers."""
        return [parent for parent in (self.init_from, *self.optim.teachers) if parent]


def dump_run_config(config: RunConfig) -> str:
    """The resolved configuration as YAML for ``--config``, without the credentials of URLs."""
    return without_credentials(yaml.safe_dump(named_options(config), sort_keys=False))


def changed_options(path: Path, config: RunConfig) -> dict[str, tuple[Any, Any]]:
    """The options that differ from an earlier start's, by name: their values then and now.

    Options of only one of the two belong to another version, model or method, and are left out. But an optimizer's own
    option counts as None if it is not set.

    Args:
        path: from ``dump_run_config`` then; if it is missing or damaged, the result is empty.
        config: now. Its folder and ``resume`` are not compared.
    """
    try:
        then = flat_options(read_yaml_file(path, "--run"))
    except UserError:
        return {}
    now = _options_of(config)
    compared = [name for name in now | then if name in now and name in then or name.startswith(_OF_OPTIMIZER)]
    return {
        name: (then.get(name), now.get(name))
        for name in compared
        if then.get(name) != now.get(name) and name not in ("run", "resume")
    }


def shared_options(config: RunConfig) -> dict[str, Any]:
    """The options that must be equal on all ranks, by name: all except the paths of files and weights."""
    options = _options_of(config).items()
    return {name: value for name, value in options if not (name.startswith(_PLACES) or name.endswith("weights"))}


def _options_of(config: RunConfig) -> dict[str, Any]:
    """All options of a run by their dotted names, as in its file."""
    return flat_options(yaml.safe_load(dump_run_config(config)))


def named_options(value: Any) -> Any:
    """A configuration or a part of it as plain values. For a model or a method its name comes first."""
    if is_dataclass(value):
        names = sorted((option.name for option in fields(value)), key=lambda name: name != "name")
        return {name: named_options(getattr(value, name)) for name in names}
    if isinstance(value, list):
        return [named_options(item) for item in value]
    return value
