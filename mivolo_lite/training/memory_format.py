"""The memory format of a model's images and weights."""

from torch import nn


def can_train_channels_last(model: nn.Module, on_cpu: bool) -> bool:
    """Whether torch's backward pass works in channels-last.

    On CPUs it ends in a segmentation fault for a grouped convolution with several output channels for each input
    channel, as in FastViT.
    """
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    return not (on_cpu and any(conv.groups > 1 and conv.out_channels > conv.in_channels for conv in convolutions))
