"""Computation of batches with few or no images of an input, and their batch norm statistics."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mivolo_lite.images.packed import Images

ROUNDED = frozenset({"cuda"})
"""Devices on which training rounds the number of images up."""
MULTIPLE = 16
"""The rounded numbers are multiples of it, or the whole batch."""


def compute(module: nn.Module, images: Images, batch: int, forward: Callable[[Tensor], Any] | None = None) -> Any:
    """The output of ``module`` for the present images.

    Every parameter must take part in every step, since other ranks wait for its gradient. So for a batch without
    images, two images of zeros are computed, without effect on running statistics and gradients. In training some
    images may be computed twice (``number_computed``), which affects only batch norm's statistics.

    Args:
        module: maps pixels (m, 3, S, S) to one or several tensors (m, ...).
        images: of the batch.
        batch: the number of its samples.
        forward: the function to call; by default the module itself.

    Returns:
        (m, ...), of which the first ``len(images.rows)`` belong to samples.
    """
    forward, pixels = forward or module, images.pixels
    if not pixels.shape[0]:  # len() would make an exported graph's batch a constant
        zeros = pixels.new_zeros(2, *pixels.shape[1:]).contiguous(memory_format=torch.channels_last)
        with frozen_statistics(module), without_checkpointing(module):
            return forward(zeros)
    return forward(some_again(pixels, batch) if module.training else pixels)


def some_again(pixels: Tensor, batch: int, others: int = 0) -> Tensor:
    """Images (n, 3, S, S), and some of them again, so that with ``others`` more they are ``number_computed``."""
    images = pixels.shape[0]
    # The condition is on the device, not on the number, so that torch.compile makes one graph.
    if not images or (images + others > 1 and pixels.device.type not in ROUNDED):
        return pixels
    computed = number_computed(images + others, batch, pixels.device.type) - others
    again = torch.arange(computed, device=pixels.device) % images
    return pixels[again].contiguous(memory_format=torch.channels_last)


def number_computed(images: int, batch: int, device: str) -> int:
    """The number of images that a training step computes, of which the first ``images`` are those of the batch.

    At least two, since batch norm takes no single value. On GPUs a multiple of 16, since the number of present images
    varies, and the first step with a new number took 25 seconds on an H200 for each small backbone in bf16, presumably
    for cudnn's choice of kernels.
    """
    if device in ROUNDED:
        images = min(-(-images // MULTIPLE) * MULTIPLE, batch)
    return max(images, 2)


@contextmanager
def without_checkpointing(module: nn.Module) -> Iterator[None]:
    """Without activation checkpointing, which would recompute batch norms in another mode."""
    checkpointed: list[Any] = [layer for layer in module.modules() if getattr(layer, "grad_checkpointing", False)]
    for layer in checkpointed:
        layer.grad_checkpointing = False
    try:
        yield
    finally:
        for layer in checkpointed:
            layer.grad_checkpointing = True


@contextmanager
def uncounted_batches(module: nn.Module) -> Iterator[None]:
    """Batch norms normalise by the batch, and do not update their running statistics.

    This is for activation checkpointing, whose second forward pass would count each batch twice.
    """
    norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    before = [(layer.momentum, layer.num_batches_tracked) for layer in norms]
    for layer in norms:
        # Not track_running_stats: without statistics autograd saves fewer tensors, and checkpointing compares.
        layer.momentum, layer.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for layer, (momentum, batches) in zip(norms, before, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, batches


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Batch norms use their running statistics, and do not update them."""
    norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.training]
    for layer in norms:
        layer.eval()
    try:
        yield
    finally:
        for layer in norms:
            layer.train()
