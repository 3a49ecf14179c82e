"""What a model computes where a batch has few images of an input, or none; and what its batch norms then count."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mivolo_lite.images.packed import Images

ROUNDED = frozenset({"cuda"})
"""Devices on which training computes rounded numbers of images."""
MULTIPLE = 16
"""The numbers are multiples of it, or the whole batch."""


def compute(module: nn.Module, images: Images, batch: int, forward: Callable[[Tensor], Any] | None = None) -> Any:
    """What ``module`` makes of the images that there are.

    Every parameter takes part in every step, whatever is missing: other ranks wait for its gradient. So where a batch
    has no image, two of zeros are computed, which no running statistic sees and of which no gradient comes. In training
    some images may be computed again (``number_computed``): only batch norm's statistics see it.

    Args:
        module: makes (m, ...) of pixels (m, 3, S, S), or several of such.
        images: of the batch.
        batch: samples of it.
        forward: what to call, where that is not the module itself.

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
    """Images (n, 3, S, S), and the first of them again up to ``number_computed`` together with ``others`` more."""
    images = pixels.shape[0]
    # The device is asked, not whether more is computed: torch.compile would make a graph for either answer.
    if not images or (images + others > 1 and pixels.device.type not in ROUNDED):
        return pixels
    computed = number_computed(images + others, batch, pixels.device.type) - others
    again = torch.arange(computed, device=pixels.device) % images
    return pixels[again].contiguous(memory_format=torch.channels_last)


def number_computed(images: int, batch: int, device: str) -> int:
    """How many images a training step computes, of which the first ``images`` are those of the batch.

    At least two, since batch norm takes no single value. On GPUs a multiple of 16: the first step with a new number
    took 25 seconds of an H200's time for each small backbone in bf16, presumably since cudnn prepares the backward pass
    of convolutions anew, and a batch that lacks images has another number each time.
    """
    if device in ROUNDED:
        images = min(-(-images // MULTIPLE) * MULTIPLE, batch)
    return max(images, 2)


@contextmanager
def without_checkpointing(module: nn.Module) -> Iterator[None]:
    """The backward pass computes nothing again: it would meet batch norms in another mode."""
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
    """Batch norms normalise by their batch and leave their running statistics as they are.

    For a backward pass with activation checkpointing, whose second forward pass would count each batch twice.
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
    """Batch norms use their running statistics, and leave them as they are."""
    norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.training]
    for layer in norms:
        layer.eval()
    try:
        yield
    finally:
        for layer in norms:
            layer.train()
