"""What engines that shard parameters need: a full copy of the estimator to evaluate, and contiguous kernels."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from mivolo_lite.distributed.data_parallel import DataParallel
from mivolo_lite.estimator import Estimator


class FullParameterCopy:
    """A copy in host memory of an estimator whose parameters are about to be sharded over the ranks.

    In evaluation a model skips the backbone of an image that its whole batch lacks. With sharded parameters, the other
    ranks would wait for ever for this rank's shards of that backbone.
    """

    def __init__(self, estimator: Estimator):
        self.estimator = copy.deepcopy(estimator).cpu().requires_grad_(False)

    @contextmanager
    def gathered(self, engine: DataParallel) -> Iterator[Estimator]:
        """The copy on the engine's device, with its current weights. All ranks must enter it."""
        estimator = self.estimator.to(engine.accelerator.device)
        current = engine.estimator.state_dict()
        for name, tensor in estimator.state_dict().items():
            parameter = engine.parameters.get(name)
            tensor.copy_(current[name] if parameter is None else engine.full_tensor(parameter))
        yield estimator
        estimator.cpu()


def use_contiguous_format(module: nn.Module) -> None:
    """Engines that shard parameters do not support channels-last kernels. Images stay channels-last."""
    module.to(memory_format=torch.contiguous_format)
