"""Shared checks and card values of soups and ensembles."""

import os
from collections.abc import Mapping, Sequence
from operator import eq
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mivolo_lite.card import Card, locate
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.files import new_path
from mivolo_lite.lineage import joined_digests
from mivolo_lite.output import complain
from mivolo_lite.shards.framing import is_cut_alike, policies_of
from mivolo_lite.tasks import Task


def require_new_folder(command: str, checkpoints: Sequence[Path | str], out: Path | str) -> Path:
    """The folder to write. Raises UserError if it exists, or if there are fewer than two checkpoints."""
    if len(checkpoints) < 2:
        raise UserError(f"{command}: give two checkpoints or more")
    return new_path(out)


def require_equal(options: Mapping[str, tuple[Any, Any]], folder: Path | str) -> None:
    """Raise UserError for the first option in which a checkpoint differs from the first one.

    Args:
        options: the first checkpoint's value and this one's, by name.
        folder: of this one.
    """
    for name, (first, other) in options.items():
        if first != other:
            raise UserError(f"{folder}: {name} {other} differs from the first's, {first}; give models that share it")


def shared_values(first: Estimator, other: Estimator, names: Sequence[str]) -> dict[str, tuple[Any, Any]]:
    """The values of two cards under these names, and the outputs of their tasks, for ``require_equal``."""
    values = {name: (getattr(first.card, name), getattr(other.card, name)) for name in names}
    return values | {"tasks": (_in_words(first.tasks), _in_words(other.tasks))}


def _in_words(tasks: Sequence[Task]) -> str:
    """The outputs of tasks, as "smiling (no, yes), yaw (regression)", without options of the training."""
    return ", ".join(f"{task.name} ({', '.join(_answer_of(task))})" for task in tasks) or "none"


def _answer_of(task: Task) -> list[str]:
    subnet = [] if task.subnet_name == task.name else [f"subnet {task.subnet_name}"]
    mirror = [] if task.mirror == "keep" else [f"mirror {task.mirror}"]
    return [*(task.classes or [task.kind]), *subnet, *mirror]


def note_differences(cards: Sequence[Card], checkpoints: Sequence[Path | str]) -> None:
    """Notes on preprocessing in which a checkpoint differs from the first one, on dropped calibrations, and on
    checkpoints given twice.
    """
    places = [os.path.realpath(locate(folder)) for folder in checkpoints]
    for folder, place in dict(zip(checkpoints, places, strict=True)).items():
        if places.count(place) > 1:
            complain(f"note: {folder} is given more than once and counts so often")
    for name, words, is_alike in (
        ("crop_policy", "cuts crops by other rules", _cut_alike),
        ("tta", "has another tta", eq),
    ):
        for card, folder in zip(cards, checkpoints, strict=True):
            if not is_alike(getattr(card, name), getattr(cards[0], name)):
                complain(f"note: {folder} {words} than {checkpoints[0]}, whose {name} is taken")
                break
    calibrated = next((folder for card, folder in zip(cards, checkpoints, strict=True) if card.calibration), None)
    if calibrated is not None:
        complain(f"note: the calibration of {calibrated} is left out, as another model's; calibrate the result")


def _cut_alike(crop_policy: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the crops of two models' training data were made alike, data set by data set."""
    policies, others = policies_of(crop_policy), policies_of(other)
    return len(policies) == len(others) and all(map(is_cut_alike, policies, others))


def joined_sources(cards: Sequence[Card], checkpoints: Sequence[Path | str]) -> dict[str, Any]:
    """The combined licences and attributions of all sources, as "mit and apache-2.0", and the training data of all
    sources and their lineage."""
    terms = {
        name: " and ".join(dict.fromkeys(text for card in cards if (text := getattr(card, name))))
        for name in ("licence", "attribution")
    }
    return {**terms, "data_digest": joined_digests("", checkpoints)}


def mean(tensors: Sequence[Tensor]) -> Tensor:
    """The mean of tensors, computed in float64. Integer tensors, such as batch counters, are the first's."""
    if not tensors[0].is_floating_point():
        return tensors[0]
    return torch.stack([tensor.double() for tensor in tensors]).mean(dim=0).to(tensors[0].dtype)
