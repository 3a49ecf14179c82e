"""Reading weights from local files, and loading them strictly."""

import argparse
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load_file
from timm.models import clean_state_dict
from torch import Tensor, nn

from mivolo_lite.errors import UserError, first_line
from mivolo_lite.images.kind import HEAD, kind_of
from mivolo_lite.old_names import current_tensors
from mivolo_lite.wording import first_few

StateDict = dict[str, Tensor]

PREFIX = "model.backbone."
"""Prefix of the backbone's parameters in an estimator of this package with a ``single`` model."""

SHOWN = 8
"""Most names that an error lists; the rest are counted."""

NUMPY_SCALAR = np.float64(0).__reduce__()[0]
HARMLESS: list[Any] = [
    argparse.Namespace,
    *((NUMPY_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float32", "float64", "int32", "int64", "bool")),
]
"""Objects other than tensors that trainers leave in checkpoints: their arguments, and numpy scalars."""


_FORBIDDEN = re.compile(r"(?:Unsupported (?:global|class|operand)[^\n]*?(?:GLOBAL|class)|unsupported GLOBAL) ([\w.]+)")


def read_checkpoint(path: str | Path) -> dict:
    """The content of a ``.safetensors`` or torch file, on the CPU. Only tensors and plain values are unpickled.

    Raises:
        UserError: the file does not exist, is damaged, or has other objects.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such weights file; give the path of a .safetensors or torch file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(HARMLESS):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # readers of pickles and archives raise any exception for a damaged file
        raise UserError(f"{path}: {_why_unreadable(path, error)}") from None
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path}: holds a {type(checkpoint).__name__}, not a dictionary of weights")
    return checkpoint


def _why_unreadable(path: Path, error: Exception) -> str:
    """The reason: the file's actual format, a forbidden object in it, or else the error itself."""
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    with open(path, "rb") as file:
        kind = kind_of(file.read(HEAD))
    if not kind.startswith(("a zip archive", "of no known format")):
        return f"is {kind}, not weights; download it again"
    if match := _FORBIDDEN.search(str(error)):
        return f"holds the object {match[1]}, and only tensors and plain values are read; save its weights alone"
    reason = "" if str(error).startswith("Weights only") else first_line(error).split(". ")[0].strip()
    return f"cannot be read as weights: it is cut, damaged or no torch file{reason and f' ({reason})'}"


def state_dict_in(checkpoint: Mapping) -> StateDict:
    """The weights in a checkpoint of timm's trainer: EMA weights if there are any, without wrappers' prefixes."""
    for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(checkpoint.get(key), Mapping):
            checkpoint = checkpoint[key]
            break
    return clean_state_dict(dict(checkpoint))


def read_state_dict(path: str | Path) -> StateDict:
    """The weights in a local file; see ``read_checkpoint`` and ``state_dict_in``."""
    return state_dict_in(read_checkpoint(path))


def timm_config(backbone: nn.Module) -> dict[str, Any]:
    """timm's ``pretrained_cfg`` of the backbone, with ``mean`` and ``std``."""
    return cast(dict[str, Any], backbone.pretrained_cfg)


def without_prefix(state: Mapping[str, Tensor], prefix: str) -> StateDict:
    """The tensors whose names begin with a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def load_backbone(backbone: nn.Module, path: str | Path) -> None:
    """Load a timm backbone, made with ``num_classes=0``, from a local file of timm's or from a ``single`` model's run.

    Only the backbone's weights are loaded.

    Raises:
        UserError: as ``read_checkpoint`` and ``load_exactly``.
    """
    names = timm_config(backbone).get("classifier") or ()
    classifiers = (names,) if isinstance(names, str) else tuple(names)
    state = read_state_dict(path)
    expected = backbone.state_dict()
    state = without_prefix(state, PREFIX) or state
    state = {
        name: value
        for name, value in state.items()
        if name in expected or not any(name.startswith(f"{head}.") for head in classifiers)
    }
    load_backbone_state(backbone, state, source=path)


def load_backbone_state(backbone: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Load a timm backbone from weights of its architecture at any image size. Raises as ``load_exactly``."""
    # timm has a filter for each architecture that resizes position tables and renames original weights.
    convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    with suppress(KeyError):  # weights of another model, which it cannot filter, are listed unchanged
        state = convert(state, backbone) if convert else state
    load_exactly(backbone, state, source)


def load_exactly(module: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Load weights that must match in names and shapes.

    Raises:
        UserError: names the first few missing, unexpected or misshapen tensors.
    """
    state = {name: state[earlier] for name, earlier in current_tensors(state).items()}
    check_state(module.state_dict(), state, source)
    module.load_state_dict(state)


def check_state(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str | Path) -> None:
    """Raise UserError that lists how ``state`` differs from ``expected`` in names and shapes, if it does."""
    shapes = [
        f"{name} {tuple(state[name].shape)} for {tuple(expected[name].shape)}"
        for name in expected
        if name in state and state[name].shape != expected[name].shape
    ]
    wrong_types = [
        f"{name} {state[name].dtype} for {expected[name].dtype}"
        for name in expected
        if name in state and state[name].is_floating_point() != expected[name].is_floating_point()
    ]
    problems = {
        "missing": [name for name in expected if name not in state],
        "unexpected": [name for name in state if name not in expected],
        "wrong shape": shapes,
        "wrong type": wrong_types,
    }
    messages = [f"{kind}: {first_few(names, SHOWN)}" for kind, names in problems.items() if names]
    if messages:
        raise UserError(f"{source}: these weights do not fit the model; " + "; ".join(messages))


def require_finite(state: Mapping[str, Tensor], source: str | Path) -> None:
    """Raise UserError if a tensor has NaN or infinity, which would make the outputs NaN."""
    for name, tensor in state.items():
        if tensor.is_floating_point() and not _is_finite(tensor):
            raise UserError(
                f"{source}: {name} is not finite, as after a training that diverged; use another checkpoint"
            )


def _is_finite(tensor: Tensor) -> bool:
    """Whether all numbers are finite, by the extremes, which takes an eighth of the time of a mask."""
    comparable = tensor.float() if tensor.itemsize == 1 else tensor  # torch compares no float8
    return tensor.numel() == 0 or all(bool(extreme.isfinite()) for extreme in comparable.aminmax())
