"""Ensembles: several trained models as one checkpoint that answers with the mean of theirs."""

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
"""What the members' cards must agree in, beside what defines their method and what their tasks answer."""

_MEMBERS = "members."
"""What stands in a weight's name before the member's number, see ``models.ensemble``."""


def ensemble(checkpoints: Sequence[Path | str], out: Path | str) -> Path:
    """Write the estimator whose raw outputs are the mean of those of the checkpoints.

    The models may differ (backbones, sizes); the method, the ages, the image size, the normalisation of each input and
    the tasks may not. The card is that of the first with the licences and data of all, without its metrics and
    calibration, which are another model's.

    Args:
        checkpoints: two or more, as for ``Estimator.load``.
        out: folder to write; must not exist.

    Raises:
        UserError: ``out`` exists, there are fewer than two checkpoints, or they cannot answer together.
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
    """Raise UserError where a member cannot answer together with the first."""
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
    # A card has that of one input; of a second one its model decides.
    others = {
        f"normalisation of a {name}": (_normalisation(first, name), _normalisation(member, name))
        for name in first.inputs
    }
    require_equal(others, folder)


def _normalisation(estimator: Estimator, name: str) -> str:
    """By which an input's images are normalised, in words."""
    mean, std = estimator.model.normalisation(name, **estimator.card.normalisation)
    return f"by mean {list(mean)} and std {list(std)}"


def _weight(name: str, states: Sequence[dict[str, Tensor]]) -> Tensor:
    """A member's own weight, or the mean of what all have: biases and starting points, in which answers are linear."""
    module, marker, rest = name.partition(_MEMBERS)
    if not marker:
        return mean([state[name] for state in states])
    index, _, weight = rest.partition(".")
    return states[int(index)][module + weight]
