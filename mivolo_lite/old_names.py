"""Names in files of earlier versions, and what they are called now. Only readers of such files ask."""

from collections.abc import Mapping
from typing import Any

from mivolo_lite.output import complain

_TRAIN_STATE = {"kinds": "subgroups"}
"""Fields of a checkpoint's ``state.json``."""

_OPTIONS = {"part": "shard", "min_pictures": "min_images"}
"""Options of commands."""


def current_option(name: str) -> str:
    """An option's current name. Where that is another, a line on standard error says so."""
    if name in _OPTIONS:
        complain(f"--{name} is called --{_OPTIONS[name]} now")
    return _OPTIONS.get(name, name)


def current_train_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a checkpoint's state under their current names."""
    return {_TRAIN_STATE.get(name, name): value for name, value in state.items()}
