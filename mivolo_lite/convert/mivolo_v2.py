"""The format of MiVOLO v2 on the Hugging Face hub: a folder with ``config.json`` and ``model.safetensors``.

The weights have the names of a published file behind ``mivolo.model.``; ages and channels are in ``config.json``.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from mivolo_lite.card import CARD_FILE, HUB_CONFIG_FILE, MODEL_FILE
from mivolo_lite.errors import UserError, first_line
from mivolo_lite.files import read_file
from mivolo_lite.models.weights import read_checkpoint
from mivolo_lite.yaml_file import parse_yaml

PREFIX = "mivolo.model."

_CHANNELS = ("in_chans", "in_channels")
_BOTH_IMAGES = 6
"""Channels of a face and a body together."""
_AGE_ONLY = ("no_gender", "only_age")
_MOST_BYTES = 1 << 20


def is_hub_layout(folder: Path) -> bool:
    """Whether it is a folder of a model from the hub, and not of this package."""
    return (
        (folder / HUB_CONFIG_FILE).is_file() and (folder / MODEL_FILE).is_file() and not (folder / CARD_FILE).exists()
    )


def is_mivolo(folder: Path) -> bool:
    """Whether the weights of a folder have MiVOLO's names. Raises UserError if they cannot be read."""
    path = folder / MODEL_FILE
    try:
        with safe_open(path, "pt") as file:
            return any(name.startswith(PREFIX) for name in file.keys())
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged, or no safetensors file ({first_line(error)}); download it again") from None


def read_hub_layout(folder: Path) -> dict[str, Any]:
    """The entries of a published file for ``convert.mivolo``: ``state_dict``, ages, inputs and outputs.

    Raises:
        UserError: it is no MiVOLO, damaged or incomplete.
    """
    if not is_mivolo(folder):
        raise UserError(f"{folder}: its weights are not MiVOLO's: no name begins with {PREFIX}")
    config = _config(folder / HUB_CONFIG_FILE)
    state = read_checkpoint(folder / MODEL_FILE)
    state = {name.removeprefix(PREFIX): _single_precision(value) for name, value in state.items()}
    ages: dict[str, Any] = {name: config[name] for name in ("min_age", "max_age", "avg_age") if name in config}
    channels = next((config[name] for name in _CHANNELS if name in config), None)
    images = {} if channels is None else {"with_persons_model": channels == _BOTH_IMAGES}
    return {"state_dict": state, **ages, **images, "no_gender": any(config.get(name) for name in _AGE_ONLY)}


def _single_precision(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value  # a batch norm's counter is an integer


def licence_of(folder: Path) -> str:
    """The licence in the head of ``README.md``, or else the first line of a ``LICENSE``, or empty."""
    readme = folder / "README.md"
    if readme.is_file() and (name := _licence_in(read_file(readme, _MOST_BYTES).decode(errors="replace"))):
        return name
    for path in filter(Path.is_file, sorted(folder.glob("LICENSE*"))):
        lines = read_file(path, _MOST_BYTES).decode(errors="replace").split("\n")
        if line := next((line.strip() for line in lines if line.strip()), ""):
            return line[:100]
    return ""


def _licence_in(text: str) -> str:
    _, _, rest = text.partition("---\n")
    head, end, _ = rest.partition("\n---")
    try:
        values = parse_yaml(head, "README.md") if end and text.startswith("---") else None
    except UserError:  # invalid YAML in the page's head
        return ""
    return str(values.get("license_name") or values.get("license") or "") if isinstance(values, dict) else ""


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(read_file(path, _MOST_BYTES))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON: {first_line(error)}") from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: is no configuration of a model")
    return config
