"""The values that a run takes from its initial checkpoint."""

import os
from copy import deepcopy
from typing import Any

from mivolo_lite.card import DEFAULT, Card, locate
from mivolo_lite.config.layers import dotted_keys, merge
from mivolo_lite.config.schema import source_of
from mivolo_lite.errors import UserError
from mivolo_lite.hub import is_hub_address
from mivolo_lite.paths import local_path
from mivolo_lite.training.checkpoint import finished_checkpoints
from mivolo_lite.training.run_folder import RunFolder
from mivolo_lite.yaml_file import read_yaml_file


def with_checkpoint(values: dict[str, Any], origin: dict[str, str]) -> dict[str, Any]:
    """The values on top of the ``init_from`` checkpoint's; ``origin`` gets the keys of the latter."""
    address = values.get("init_from")
    if not isinstance(address, str) or not address:
        return values
    merged = _checkpoint_values(checkpoint_path(address, f"{source_of('init_from', origin)}: init_from"), values)
    for key in dotted_keys(merged):
        origin.setdefault(key, address)
    merge(merged, values)
    return merged


def _checkpoint_values(address: str, values: dict[str, Any]) -> dict[str, Any]:
    """Model, method, ages and image size of a checkpoint, or of a resumed run's own configuration."""
    run = RunFolder(local_path(str(values.get("run", "")), "run"))
    # ``init_from`` may be gone by now. A start that saved nothing is not resumed, and may have had another one.
    if values.get("resume") == "auto" and finished_checkpoints(run.checkpoints) and run.config.is_file():
        config = read_yaml_file(run.config, "--run")
        data = config.get("data")
        sections = {key: config[key] for key in ("model", "method", "ages") if isinstance(config.get(key), dict)}
        return sections | (
            {"data": {"image_size": data["image_size"]}} if isinstance(data, dict) and "image_size" in data else {}
        )
    if not (address == DEFAULT or is_hub_address(address) or os.path.isdir(address)):  # the trainer reports it
        return {}
    card = Card.load(locate(address)).from_nothing()
    if card.model["name"] == "ensemble":
        raise UserError(f"{address}: is an ensemble, which does not learn; start from a member, or make it a teacher")
    sections = {"model": card.model, "method": card.method, "ages": card.span, "data": {"image_size": card.image_size}}
    return deepcopy(sections)


def checkpoint_path(address: str, option: str) -> str:
    """An address of the hub unchanged, or a folder with ``~`` and ``$VARIABLES`` expanded."""
    return address if is_hub_address(address) else local_path(address, option)
