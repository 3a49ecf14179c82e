"""The state of any optimizer as named tensors, for engines whose ranks hold all of it.

``KEY.NAME`` is a value in a parameter's state, ``KEY.NAME.0``, ``KEY.NAME.1`` ... the items of a list, and
``step.groups.0`` ... the step counts of parameter groups. These are all equal, so a run may resume with other groups. A
64-bit tensor without dimensions stands for a Python number; optimizers' tensors have 32 bits.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

_GROUPS = "step.groups."
_NUMBERS = {bool: torch.bool, int: torch.int64, float: torch.float64}


def named_state(optimizer: Optimizer, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The optimizer's state, on the CPU."""
    named = {f"{key}.{name}": value for name, p in parameters.items() for key, value in optimizer.state[p].items()}
    named |= {f"{_GROUPS}{number}": g["step"] for number, g in enumerate(optimizer.param_groups) if "step" in g}
    return {name: tensor.cpu().contiguous() for path, value in named.items() for name, tensor in _tensors(path, value)}


def load_named_state(optimizer: Optimizer, parameters: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Load what ``named_state`` returned."""
    keepers = {name: optimizer.state[parameter] for name, parameter in parameters.items()}
    for path in state:
        key, _, name = path.partition(".")
        owner, _, index = name.rpartition(".")
        if path.startswith(_GROUPS):
            for group in optimizer.param_groups:
                group["step"] = _value(optimizer, key, state[path], None)
        elif name in keepers:
            keepers[name][key] = _value(optimizer, key, state[path], parameters.get(name))
        elif owner in keepers and index.isdigit():
            keepers[owner].setdefault(key, []).append(_value(optimizer, key, state[path], parameters[owner]))
        else:
            raise KeyError(path)


def _tensors(path: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _tensors(f"{path}.{index}", item)
    elif value is not None:
        yield path, torch.tensor(value, dtype=_NUMBERS[type(value)])


def _value(optimizer: Optimizer, key: str, saved: Tensor, parameter: Tensor | None) -> Any:
    """A saved value as the optimizer needs it: on the device that ``load_state_dict`` selects, in its own type."""
    if not saved.ndim and saved.dtype in _NUMBERS.values():
        return saved.item()
    if parameter is None or key == "step" and not optimizer.defaults.get("fused"):
        return saved.clone()
    if saved.shape == parameter.shape:  # a copy gets the parameter's memory format, in which the update reads
        return torch.empty_like(parameter, dtype=saved.dtype, requires_grad=False).copy_(saved)
    return saved.to(parameter.device, copy=True)
