"""Model soups (Wortsman et al., 2022): one model with the mean weights of several fine-tuned models."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mivolo_lite.card import Card, locate
from mivolo_lite.card_changes import method_changes, model_changes
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
from mivolo_lite.output import complain

_SAME = ("image_size", "normalisation", "age")
"""Values that the cards must share, besides the options that define the model and method and the tasks' outputs."""

_SAME_START = 0.5
"""Least cosine between the weights of models that started from the same: of several seeds of `configs/utkface.yaml`, it
is 0.94 after 14 epochs; of models that started from others, 0."""


def soup(checkpoints: Sequence[Path | str], out: Path | str) -> Path:
    """Write the estimator with the mean weights of several checkpoints: a uniform soup.

    The models must be short fine-tunings of the same weights; after long trainings, or from different weights, the mean
    is worse than each (``greedy_soup`` measures this). A note names models that started from other weights. Batch
    statistics are averaged like weights; ``loss_buffers`` are initialised. The card is that of the first, with the
    licences and data of all, and without metrics and calibration.

    Args:
        checkpoints: two or more, as for ``Estimator.load``, trained with the same options of model and method.
        out: folder to write; must not exist.

    Raises:
        UserError: ``out`` exists, there are fewer than two checkpoints, or they differ in what defines a model.
    """
    out = require_new_folder("soup", checkpoints, out)
    write_mean(checkpoints, out)
    note_differences([Card.load(locate(folder)) for folder in checkpoints], checkpoints)
    return out


def write_mean(checkpoints: Sequence[Path | str], out: Path) -> None:
    """Write the mean of the checkpoints, see ``soup``. Raises UserError if their models or methods differ."""
    estimators = [Estimator.load(folder) for folder in checkpoints]
    cards = [Card.load(locate(folder)) for folder in checkpoints]
    for card, folder in zip(cards[1:], checkpoints[1:], strict=True):
        require_equal(model_changes(cards[0], card) | method_changes(cards[0], card), folder)
    # cards of the estimators, since a file may leave the normalisation to its model
    for estimator, folder in zip(estimators[1:], checkpoints[1:], strict=True):
        require_equal(shared_values(estimators[0], estimator, _SAME), folder)
    states = [estimator.state_dict() for estimator in estimators]
    for state, folder in zip(states[1:], checkpoints[1:], strict=True):
        _require_same_weights(states[0], state, folder)
        if (cosine := _cosine(states[0], state)) < _SAME_START:
            complain(
                f"note: {folder} seems to have started from other weights than {checkpoints[0]} (their cosine is "
                f"{cosine:.2f}), so that the mean is worse than each; `mivolo-lite ensemble` takes any models"
            )
    # buffers of the loss are initialised, and may differ in size
    loss_buffers = {f"method.{name}" for name in estimators[0].method.loss_buffers}
    weights = {
        name: tensor if name in loss_buffers else mean([state[name] for state in states])
        for name, tensor in states[0].items()
    }
    estimators[0].card = replace(cards[0], metrics={}, calibration={}, **joined_sources(cards, checkpoints))
    estimators[0].save(out, weights)


def _cosine(first: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The cosine of the matrices and kernels of two models. Scales and statistics are similar in any two models."""
    names = [name for name, tensor in first.items() if tensor.dim() > 1 and tensor.shape == other[name].shape]
    one, another = (torch.cat([state[name].float().flatten() for name in names]) for state in (first, other))
    return float(torch.cosine_similarity(one, another, dim=0))


def _require_same_weights(first: dict[str, Tensor], other: dict[str, Tensor], folder: Path | str) -> None:
    for name in first.keys() ^ other.keys():
        raise UserError(f"{folder}: {name} is in one of the checkpoints alone; average models with the same tasks")
