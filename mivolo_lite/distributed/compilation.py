"""``torch.compile`` of the training call, for batches that have another number of images each time."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import chain

import torch
from einops import rearrange
from torch import nn

from mivolo_lite.images.packed import Images

_MIN_IMAGES = 2
"""Images of an input in a compiled batch: for 0 and for 1, which are rare, torch would compile graphs of their own."""


def compile_forward(module: nn.Module, backend: str = "inductor") -> None:
    """Compile a module's forward pass: what wraps it later, such as autocast and DDP, stays outside of the graph."""
    for tensor in (torch.zeros(1), nn.Parameter(torch.zeros(1))):
        rearrange(tensor, "a -> a")  # einops lists the types it met, and torch compiles again where the list has grown
    module.forward = torch.compile(module.forward, backend=backend)


def without_compilation() -> AbstractContextManager:
    """Modules compute as they are written: for evaluation, whose batches would each need graphs of their own."""
    return torch.compiler.set_stance("force_eager")


def with_dynamic_sizes(images: Mapping[str, Images | int]) -> AbstractContextManager:
    """Around the forward pass of a batch, so that one graph serves any number of images.

    Models that compute something else where no image is missing (MiVOLO) have a second one for each input.

    Args:
        images: a batch's ``images()``, whose tensors are marked.
    """
    inputs = [value for value in images.values() if isinstance(value, Images)]
    if any(len(packed.rows) < _MIN_IMAGES for packed in inputs):
        return without_compilation()
    for tensor in chain.from_iterable(inputs):
        torch._dynamo.maybe_mark_dynamic(tensor, 0)
    return nullcontext()
