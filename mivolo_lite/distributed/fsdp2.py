"""torch's FSDP2."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from mivolo_lite.distributed.data_parallel import DataParallel
from mivolo_lite.distributed.full_copy import FullParameterCopy, use_contiguous_format
from mivolo_lite.estimator import Estimator
from mivolo_lite.images.packed import Images

_MIN_PARAMETERS = 100_000
"""Smallest block that FSDP2 gathers by itself; smaller ones are gathered with the module around them."""

_AUTOCAST_LAYERS = (nn.Linear, nn.Conv2d)
"""Layers that autocast computes in bfloat16, with their weights."""


class FullySharded(DataParallel):
    """torch's FSDP2: every rank holds a shard of every parameter, and of its optimizer state and gradient.

    With bf16, the matrices of blocks are gathered in bf16, and their gradients reduced in float32.
    """

    def prepare(self, optimizer: Optimizer) -> tuple[Any, Optimizer]:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        self._reject_shared_weights("FSDP2")
        self._require_moments(optimizer, "FSDP2")
        use_contiguous_format(self.estimator)
        self.full_copy = FullParameterCopy(self.estimator)
        mesh = init_device_mesh(self.accelerator.device.type, (self.accelerator.num_processes,))
        called = _called_modules(self.estimator)
        is_mixed = self.accelerator.mixed_precision == "bf16"
        cast: set[nn.Module] = set()
        for block in _blocks(self.estimator):
            if block not in called:
                continue
            matrices: list[nn.Module] = [
                layer for layer in block.modules() if layer in called - cast and isinstance(layer, _AUTOCAST_LAYERS)
            ]
            if is_mixed and matrices:
                # Autocast casts after the gather. The same cast before it halves the traffic; the outputs are equal.
                policy = MixedPrecisionPolicy(torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
                fully_shard(matrices, mesh=mesh, mp_policy=policy)
                cast |= set(matrices)
            if block not in cast:  # a convolution can be a block by itself
                fully_shard(block, mesh=mesh)
        fully_shard(self.estimator, mesh=mesh, reshard_after_forward=True)
        sharded = dict(self.estimator.named_parameters())
        replaced = {id(parameter): sharded[name] for name, parameter in self.parameters.items()}
        for group in optimizer.param_groups:
            group["params"] = [replaced[id(parameter)] for parameter in group["params"]]
        self.parameters = sharded
        return self.estimator, optimizer

    def full_estimator(self) -> AbstractContextManager[Estimator]:
        return self.full_copy.gathered(self)

    def forward(self, images: Mapping[str, Images | int]) -> dict[str, Tensor]:
        with self.autocast():  # in the other engines, Accelerate and DeepSpeed wrap the model in it
            return super().forward(images)

    @contextmanager
    def micro_batch(self, last: bool) -> Iterator[None]:
        self.model.set_requires_gradient_sync(last)
        yield

    def update(self, sound: Tensor) -> tuple[Tensor, bool]:
        sharded: Any = clip_grad_norm_(self.parameters.values(), self.clip_norm or float("inf"))
        norm = sharded.full_tensor()
        return norm, self._step_if_finite(sound, norm)

    def local_shard(self, parameter: Any) -> Tensor:
        return parameter.detach().to_local()

    def shard(self, parameter: Any, full: Tensor) -> Tensor:
        return self._shard(parameter, full).to_local()

    def full_tensor(self, parameter: Any) -> Tensor:
        return parameter.detach().full_tensor()

    def moment(self, parameter: Any, moment: str) -> Tensor:
        return self.inner_optimizer.state[parameter][moment].full_tensor()

    def set_state(self, parameter: Any, step: Tensor, state: Mapping[str, Tensor]) -> None:
        state = {name: self._shard(parameter, value) for name, value in state.items()}
        self.inner_optimizer.state[parameter] = {"step": self._step_of(parameter, step), **state}

    def _shard(self, parameter: Any, full: Tensor) -> Any:
        from torch.distributed.tensor import distribute_tensor

        full = full.to(self.accelerator.device)
        return distribute_tensor(full, parameter.device_mesh, parameter.placements, src_data_rank=None)


@torch.no_grad()
def _called_modules(estimator: Estimator) -> set[nn.Module]:
    """The modules whose ``forward`` runs.

    FSDP2 gathers a block's parameters there. Those of a stage whose layers a model calls one by one, as SwinFace does,
    would stay sharded.
    """
    called = set()
    hooks = [module.register_forward_pre_hook(lambda module, _: called.add(module)) for module in estimator.modules()]
    size, training = estimator.card.image_size, estimator.training
    device = next(estimator.parameters()).device
    pixels = torch.zeros(1, 3, size, size, dtype=torch.uint8, device=device)
    estimator.eval()(**dict.fromkeys(estimator.inputs, Images.of(pixels)))
    estimator.train(training)
    for hook in hooks:
        hook.remove()
    return called


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The larger members of module lists and sequential modules, inner ones first."""
    for child in module.children():
        yield from _blocks(child)
        listed = isinstance(module, nn.ModuleList | nn.Sequential) and not isinstance(child, nn.ModuleList)
        if listed and sum(parameter.numel() for parameter in child.parameters()) >= _MIN_PARAMETERS:
            yield child
