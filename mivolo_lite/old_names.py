"""Names in files of earlier versions, and what they are called now. Only readers of such files ask."""

from collections.abc import Mapping
from typing import Any

_TRAIN_STATE = {"kinds": "subgroups"}
"""Fields of a checkpoint's ``state.json``."""


def current_train_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a checkpoint's state under their current names."""
    return {_TRAIN_STATE.get(name, name): value for name, value in state.items()}
