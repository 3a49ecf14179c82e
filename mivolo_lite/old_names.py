"""Names in files of earlier versions, and their current names."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mivolo_lite.output import complain

_TRAIN_STATE = {"kinds": "subgroups"}
"""Fields of a checkpoint's ``state.json``."""

_OPTIONS = {"part": "shard", "min_pictures": "min_images"}
"""Options of commands."""

_KEYS = {"start": "init_from"}
"""Keys of a run's configuration."""


def current_option(name: str) -> str:
    """A command's option under its current name. A renamed option is reported on standard error."""
    if name in _OPTIONS:
        complain(f"--{name} is called --{_OPTIONS[name]} now")
    return _OPTIONS.get(name, name)


def current_key(key: str, source: str) -> str:
    """A configuration's key under its current name. Rank 0 reports a renamed key on standard error."""
    if key in _KEYS and os.environ.get("RANK", "0") == "0":
        complain(f"{source}: {key} is called {_KEYS[key]} now")
    return _KEYS.get(key, key)


_TENSORS = {"stand_in": "missing_token"}
"""Last parts of tensors' names, in weights and in the optimizer's state."""

_FILES = {"optimizer.safetensors": "moments.safetensors", "ema.safetensors": "average.safetensors"}
"""Files of a checkpoint."""


def current_file(folder: Path, name: str) -> Path:
    """The file of this name in a checkpoint, or under the name of an earlier version."""
    earlier = folder / _FILES.get(name, name)
    return earlier if earlier.is_file() and not (folder / name).is_file() else folder / name


def current_tensors(names: Iterable[str]) -> dict[str, str]:
    """The tensors' current names, each with its name in the file."""
    return {_current_tensor(name): name for name in names}


def _current_tensor(name: str) -> str:
    path, dot, final = name.rpartition(".")
    return f"{path}{dot}{_TENSORS.get(final, final)}"


def current_train_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a checkpoint's state under their current names."""
    return {_TRAIN_STATE.get(name, name): value for name, value in state.items()}
