"""Ranks that are started one by one, for example on several nodes, must do the same work.

Nothing else would detect a difference. If one node has another learning rate, its weights drift away from the saved
ones. With other shards, samples are left out and repeated. If collective operations depend on options, the ranks wait
for each other for ever.
"""

from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from mivolo_lite.errors import UserError
from mivolo_lite.wording import first_few


def require_agreement(values: Mapping[str, Any], accelerator: Accelerator) -> None:
    """Raise UserError on all ranks if one has other values than rank 0. All ranks must call it.

    Args:
        values: that must be equal on all ranks, by their names.
        accelerator: joins the ranks.
    """
    (first,) = broadcast_object_list([dict(values)])
    names = [name for name in {**first, **values} if first.get(name) != values.get(name)]
    differences = [f"{name} is {first.get(name)} on rank 0, {values.get(name)} here" for name in names]
    found = gather_object([f"rank {accelerator.process_index}: {first_few(differences)}"] if differences else [])
    if found:
        raise UserError(f"launch: {found[0]}; start all ranks with the same options, data and version")
