"""What averaging checkpoints needs, as weights or as answers."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mivolo_lite.errors import UserError


def require_new_folder(command: str, checkpoints: Sequence[Path | str], out: Path | str) -> Path:
    """The folder to write. Raises UserError where it exists, or there are fewer than two checkpoints."""
    if len(checkpoints) < 2:
        raise UserError(f"{command}: give two checkpoints or more")
    out = Path(out)
    if out.exists():
        raise UserError(f"{out}: already exists; remove it or choose another name")
    return out


def mean(tensors: Sequence[Tensor]) -> Tensor:
    """Computed in float64. Counters of batches, which are whole numbers, stay the first's."""
    if not tensors[0].is_floating_point():
        return tensors[0]
    return torch.stack([tensor.double() for tensor in tensors]).mean(dim=0).to(tensors[0].dtype)
