"""Ensembles: several trained models as one checkpoint that answers with the mean of theirs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from mivolo_lite.card import Card, locate
from mivolo_lite.convert.averages import mean, require_new_folder
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.methods import METHODS

_SAME = ("span", "image_size", "normalisation", "tasks", "gender")
"""What the members' cards must agree in, beside what defines their method."""

_MEMBERS = "members."
"""What stands in a weight's name before the member's number, see ``models.ensemble``."""


def ensemble(checkpoints: Sequence[Path | str], out: Path | str) -> Path:
    """Write the estimator whose raw outputs are the mean of those of the checkpoints.

    The models may differ (backbones, sizes); the method, the ages, the image size and the tasks may not. The card is
    that of the first, without its metrics and calibration, which are another model's.

    Args:
        checkpoints: two or more, as for ``Estimator.load``.
        out: folder to write; must not exist.

    Raises:
        UserError: ``out`` exists, there are fewer than two checkpoints, or they cannot answer together.
    """
    out = require_new_folder("ensemble", checkpoints, out)
    members = [Estimator.load(folder) for folder in checkpoints]
    cards = [Card.load(locate(folder)).from_nothing() for folder in checkpoints]
    for member, card, folder in zip(members, cards, checkpoints, strict=True):
        _require_same(members[0], member, cards[0], card, folder)
    model = {"name": "ensemble", "members": [card.model for card in cards]}
    card = replace(cards[0], model=model, metrics={}, calibration={})
    estimator = Estimator(card)
    states = [member.state_dict() for member in members]
    estimator.save(out, {name: _weight(name, states) for name in estimator.state_dict()})
    return out


def _require_same(first: Estimator, member: Estimator, first_card: Card, card: Card, folder: Path | str) -> None:
    """Raise UserError where a member cannot answer together with the first."""
    method = METHODS[card.method["name"]]
    if card.model["name"] == "ensemble":
        raise UserError(f"{folder}: is an ensemble itself; give its members")
    if not method.averages:
        raise UserError(
            f"{folder}: {card.method['name']} has no mean of several models' outputs; choose another method"
        )
    if member.inputs != first.inputs:
        raise UserError(f"{folder}: looks at {' and '.join(member.inputs)}, the first at {' and '.join(first.inputs)}")
    same = {
        f"method.{name}": (first_card.method.get(name), card.method.get(name)) for name in ("name", *method.defining)
    }
    same |= {name: (getattr(first_card, name), getattr(card, name)) for name in _SAME}
    for name, (ours, others) in same.items():
        if ours != others:
            raise UserError(f"{folder}: {name} {others} differs from the first's, {ours}; give models that share it")


def _weight(name: str, states: Sequence[dict[str, Tensor]]) -> Tensor:
    """A member's own weight, or the mean of what all have: biases and starting points, in which answers are linear."""
    module, found, rest = name.partition(_MEMBERS)
    if not found:
        return mean([state[name] for state in states])
    number, _, weight = rest.partition(".")
    return states[int(number)][module + weight]
