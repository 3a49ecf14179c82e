"""Backbones by timm's ``hf-hub:user/name`` or ``local-dir:FOLDER``: a ``config.json`` and weights.

A checkpoint stores only the architecture's name, so that it loads without the hub or the folder.
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
"""Arguments that this package sets, or that do not change the weights."""


@dataclass(frozen=True)
class BackboneSource:
    """The content of timm's ``config.json``.

    Attributes:
        name: as the user gave it.
        architecture: timm's name.
        normalisation: ``mean`` and ``std`` of the images, if it has them.
    """

    name: str
    architecture: str
    normalisation: dict[str, tuple[float, ...]]

    @property
    def weights(self) -> Path:
        """The path of ``model.safetensors``, downloaded if needed; in a folder also ``pytorch_model.bin``."""
        path = _file(self.name, "model.safetensors")
        pickled = path.with_name("pytorch_model.bin")
        return pickled if pickled.is_file() and not path.is_file() else path


def is_source(name: str) -> bool:
    """Whether a backbone's name has a source."""
    kind, colon, _ = name.partition(":")
    return bool(colon) and kind in _SOURCES


def architecture_of(name: str) -> str:
    """timm's name of a backbone. Raises UserError if its source does not exist."""
    return read_source(name).architecture if is_source(name) else name


@cache
def read_source(name: str) -> BackboneSource:
    """The source of a backbone.

    Raises:
        UserError: it does not exist, or its ``config.json`` is not timm's or has options beyond the architecture.
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
