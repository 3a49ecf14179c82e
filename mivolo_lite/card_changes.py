"""Differences between two cards: whether the weights of one fit the model of the other, and which do not."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mivolo_lite.card import Card
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import GENDER_HEAD
from mivolo_lite.methods import METHODS
from mivolo_lite.tasks import BUILTIN_TASKS, read_tasks


def require_same_model(card: Card, start: Card, folder: Path | str) -> None:
    """Raise UserError if a run's model, or the classes of a task, differ from those of its initial weights.

    Args:
        card: of the run.
        start: of the initial weights.
        folder: of the initial weights, for the message.
    """
    for name, (value, trained) in model_changes(card, start).items():
        raise UserError(
            f"--init-from {folder}: was trained with {name} {trained}, this run says {value}; give --{name} {trained}"
        )
    trained = {task.name: task.classes for task in read_tasks(start.tasks)}
    for task in read_tasks(card.tasks):
        if trained.get(task.name, task.classes) != task.classes:
            raise UserError(
                f"--init-from {folder}: was trained with classes {trained[task.name]} of {task.name}, this run "
                f"says {task.classes}; give the same ones in the same order, or give the task another name"
            )


def model_changes(card: Card, start: Card) -> dict[str, tuple[Any, Any]]:
    """Options that define the model and differ, by name: the first card's and the other's. Dropout and the source of
    initial weights may differ.
    """
    return _changes("model", _structural(card.model, start.model), card.model, start.model)


def method_changes(card: Card, start: Card) -> dict[str, tuple[Any, Any]]:
    """Options that define the method's head and differ, including the ages, as in ``model_changes``. Options of the
    loss may differ.
    """
    names = ("name", *(METHODS[card.method["name"]].defining if card.method["name"] in METHODS else ()))
    return _changes("method", names, card.method, start.method) | _changes("ages", card.span, card.span, start.span)


def _changes(kind: str, names: Iterable[str], options: Mapping, others: Mapping) -> dict[str, tuple[Any, Any]]:
    shared = [name for name in names if name in options and name in others]
    return {f"{kind}.{name}": (options[name], others[name]) for name in shared if options[name] != others[name]}


def fresh_weights(card: Card, start: Card) -> tuple[str, ...]:
    """Prefixes of a run's weights that are not in its initial weights: heads and subnets of new tasks and of the
    gender, and the method's if it differs or if the initial model learnt no ages."""
    tasks, trained = read_tasks(card.tasks), read_tasks(start.tasks)
    heads = {task.name for task in tasks} - {task.name for task in trained}
    subnets = {task.subnet_name for task in tasks} - {task.subnet_name for task in trained} - {*BUILTIN_TASKS}
    gender = () if start.gender else (GENDER_HEAD,)  # published age-only checkpoints
    method = ("method.",) if method_changes(card, start) or not start.age else ()
    return *(f"heads.{name}." for name in heads), *(f"subnets.{name}." for name in subnets), *gender, *method


def _structural(*options: Mapping[str, Any]) -> list[str]:
    names = dict.fromkeys(name for config in options for name in config)
    return [name for name in names if not name.startswith(("drop", "pretrained")) and not name.endswith("weights")]
