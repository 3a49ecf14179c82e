"""Backbones by timm's ``hf-hub:user/name`` or ``local-dir:FOLDER``: a ``config.json`` with the weights beside it.

Only the architecture's name is kept of them in a checkpoint, so that it can be loaded without the hub or the folder.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mivolo_lite.errors import UserError
from mivolo_lite.hub import PREFIX, local_copy

_SOURCES = ("hf-hub", "local-dir")
_USUAL_ARGUMENTS = {"num_classes", "in_chans", "img_size", "global_pool"}
"""Arguments of a model that are chosen here, or do not change its weights."""


@dataclass(frozen=True)
class BackboneSource:
    """What a ``config.json`` of timm's says.

    Attributes:
        name: as the user gave it.
        architecture: timm's name.
        normalisation: ``mean`` and ``std`` of the images, where it has them.
    """

    name: str
    architecture: str
    normalisation: dict[str, tuple[float, ...]]

    @property
    def weights(self) -> Path:
        """Its ``model.safetensors``, fetched where it is not here; in a folder also ``pytorch_model.bin``."""
        path = _file(self.name, "model.safetensors")
        pickled = path.with_name("pytorch_model.bin")
        return pickled if pickled.is_file() and not path.is_file() else path


def is_source(name: str) -> bool:
    """Whether a backbone's name says where it comes from."""
    kind, colon, _ = name.partition(":")
    return bool(colon) and kind in _SOURCES


def architecture_of(name: str) -> str:
    """timm's name of a backbone. Raises UserError where there is no such source."""
    return read_source(name).architecture if is_source(name) else name


@cache
def read_source(name: str) -> BackboneSource:
    """The source of a backbone.

    Raises:
        UserError: it is not there, or its ``config.json`` is none of timm's, or says more than a name can.
    """
    path = _file(name, "config.json")
    try:
        config = json.loads(path.read_bytes())
        pretrained: dict[str, Any] = config.get("pretrained_cfg", config)
        found: dict[str, tuple[float, ...]] = {
            key: tuple(map(float, pretrained[key])) for key in ("mean", "std") if key in pretrained
        }
        architecture, arguments = str(config["architecture"]), set(config.get("model_args", ()))
    except FileNotFoundError:
        raise UserError(f"{name}: no config.json here; give a folder that timm saved a model in") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{name}: {path.name} is not timm's: it names no architecture") from None
    if surplus := sorted(arguments - _USUAL_ARGUMENTS):
        raise UserError(
            f"{name}: is {architecture} built with {', '.join(surplus)}, which its name alone would not say"
        )
    return BackboneSource(name, architecture, found)


def _file(name: str, file: str) -> Path:
    kind, _, address = name.partition(":")
    return local_copy(f"{PREFIX}{address}/{file}") if kind == "hf-hub" else Path(address).expanduser() / file
