"""The weight of each training sample in the losses."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mivolo_lite.errors import UserError
from mivolo_lite.shards.concat import concat_labels
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.training.balance import balanced_weights
from mivolo_lite.training.dro import GroupDro
from mivolo_lite.training.optim import OptimConfig
from mivolo_lite.training.subgroups import frequencies


def build_weighting(
    optim: OptimConfig, indexes: Sequence[ShardIndex], shares: Sequence[float], device: torch.device
) -> tuple[Tensor | None, GroupDro | None]:
    """(N,) weights by the labels, and Group DRO's weights by the losses; None for what is off.

    Args:
        optim: the options.
        indexes: of the training data sets, with N samples in all; empty for a stream.
        shares: relative frequency of each data set.
        device: of the losses.

    Raises:
        UserError: the data is a stream, or no sample has the labels.
    """
    balance, dro = optim.balance, optim.dro
    if balance.by == dro.by == "none":
        return None, None
    if not indexes:
        raise UserError(
            "data.reader stream: no label is known before it is read, so optim.balance and optim.dro cannot weigh "
            "it; set their `by` to none, or index the shards"
        )
    columns, groups = concat_labels(indexes)
    frequency = frequencies(indexes, shares)
    weights = None if balance.by == "none" else balanced_weights(columns, balance, frequency).to(device)
    return weights, None if dro.by == "none" else GroupDro(columns, groups, weights, dro, device, frequency)
