"""``torch.compile`` of the training call, for batches with varying numbers of images."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import chain

import torch
from einops import rearrange
from torch import nn

from mivolo_lite.images.packed import Images

_MIN_IMAGES = 2
"""Fewest images of an input in a compiled batch: torch would compile extra graphs for 0 and for 1, which are rare."""


def compile_forward(module: nn.Module, backend: str = "inductor") -> None:
    """Compile a module's forward pass. Later wrappers, such as autocast and DDP, stay outside of the graph."""
    for tensor in (torch.zeros(1), nn.Parameter(torch.zeros(1))):
        rearrange(tensor, "a -> a")  # einops caches tensor types, and torch recompiles when that cache has grown
    module.forward = torch.compile(module.forward, backend=backend)


def without_compilation() -> AbstractContextManager:
    """Run modules in eager mode: for evaluation, whose batches would each need their own graphs."""
    return torch.compiler.set_stance("force_eager")


def with_dynamic_sizes(images: Mapping[str, Images | int]) -> AbstractContextManager:
    """A context for the forward pass of a batch, so that one graph serves any number of images.

    Models with another path for batches without missing images (MiVOLO) have a second graph for each input.

    Args:
        images: a batch's ``images()``, whose tensors are marked as dynamic.
    """
    inputs = [value for value in images.values() if isinstance(value, Images)]
    if any(len(packed.rows) < _MIN_IMAGES for packed in inputs):
        return without_compilation()
    for tensor in chain.from_iterable(inputs):
        torch._dynamo.maybe_mark_dynamic(tensor, 0)
    return nullcontext()
