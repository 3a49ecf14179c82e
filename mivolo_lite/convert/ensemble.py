"""Ensembles: one checkpoint that averages the outputs of several models."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from mivolo_lite.convert.averages import (
    joined_sources,
    mean,
    note_differences,
    require_equal,
    require_new_folder,
    shared_values,
)
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator

_SAME = ("span", "image_size", "normalisation", "age", "gender")
"""Values that the members' cards must share, besides the options that define the method and the tasks' outputs."""

_MEMBERS = "members."
"""The parts of a weight's name before the member's number, see ``models.ensemble``."""


def ensemble(checkpoints: Sequence[Path | str], out: Path | str) -> Path:
    """Write the estimator whose raw outputs are the mean of those of several checkpoints.

    The models may differ (backbones, sizes); the method, the ages, the image size, the normalisation of each input and
    the tasks may not. The card is that of the first, with the licences and data of all, and without metrics and
    calibration.

    Args:
        checkpoints: two or more, as for ``Estimator.load``.
        out: folder to write; must not exist.

    Raises:
        UserError: ``out`` exists, there are fewer than two checkpoints, or they are incompatible.
    """
    out = require_new_folder("ensemble", checkpoints, out)
    members = [Estimator.load(folder) for folder in checkpoints]
    for member, folder in zip(members, checkpoints, strict=True):
        _require_same(members[0], member, folder)
    note_differences([member.card for member in members], checkpoints)
    model = {"name": "ensemble", "members": [member.card.model for member in members]}
    sources = joined_sources([member.card for member in members], checkpoints)
    estimator = Estimator(replace(members[0].card, model=model, metrics={}, calibration={}, **sources))
    states = [member.state_dict() for member in members]
    estimator.save(out, {name: _weight(name, states) for name in estimator.state_dict()})
    return out


def _require_same(first: Estimator, member: Estimator, folder: Path | str) -> None:
    """Raise UserError if a member is incompatible with the first."""
    card, first_card, name = member.card, first.card, member.card.method["name"]
    if card.model["name"] == "ensemble":
        raise UserError(f"{folder}: is an ensemble itself; give its members")
    if not member.method.averages:
        raise UserError(f"{folder}: {name} has no mean of several models' outputs; choose another method")
    if member.inputs != first.inputs:
        raise UserError(f"{folder}: looks at {' and '.join(member.inputs)}, the first at {' and '.join(first.inputs)}")
    defining = ("name", *member.method.defining)
    same = {f"method.{option}": (first_card.method.get(option), card.method.get(option)) for option in defining}
    require_equal(same | shared_values(first, member, _SAME), folder)
    # a card has that of one input; that of a second one is the model's
    others = {
        f"normalisation of a {name}": (_normalisation(first, name), _normalisation(member, name))
        for name in first.inputs
    }
    require_equal(others, folder)


def _normalisation(estimator: Estimator, name: str) -> str:
    """The normalisation of an input, as text."""
    mean, std = estimator.model.normalisation(name, **estimator.card.normalisation)
    return f"by mean {list(mean)} and std {list(std)}"


def _weight(name: str, states: Sequence[dict[str, Tensor]]) -> Tensor:
    """A member's weight, or the mean of a shared one: biases and prior offsets, in which outputs are linear."""
    module, marker, rest = name.partition(_MEMBERS)
    if not marker:
        return mean([state[name] for state in states])
    index, _, weight = rest.partition(".")
    return states[int(index)][module + weight]
