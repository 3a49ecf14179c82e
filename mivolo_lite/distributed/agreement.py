"""Ranks that are started one by one, as those of several nodes are, must be given the same work.

Nothing else would tell. In a training with another learning rate on one node, its weights drift away from those that
are saved; with other shards, samples are left out and repeated; where options decide what the ranks do together, they
wait for each other without end.
"""

from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from mivolo_lite.errors import UserError
from mivolo_lite.wording import first_few


def require_agreement(values: Mapping[str, Any], accelerator: Accelerator) -> None:
    """Raise UserError on all ranks where one has other values than rank 0. All ranks must call it.

    Args:
        values: what the ranks must share, by its names.
        accelerator: joins the ranks.
    """
    (first,) = broadcast_object_list([dict(values)])
    names = [name for name in {**first, **values} if first.get(name) != values.get(name)]
    differences = [f"{name} is {first.get(name)} on rank 0, {values.get(name)} here" for name in names]
    found = gather_object([f"rank {accelerator.process_index}: {first_few(differences)}"] if differences else [])
    if found:
        raise UserError(f"launch: {found[0]}; start all ranks with the same options, data and version")
