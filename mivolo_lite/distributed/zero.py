"""DeepSpeed's ZeRO."""

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import AdamW, Optimizer

from mivolo_lite.distributed.data_parallel import MOMENTS, DataParallel
from mivolo_lite.distributed.full_copy import FullParameterCopy, use_contiguous_format
from mivolo_lite.estimator import Estimator


class Zero(DataParallel):
    """DeepSpeed's ZeRO 1, 2 and 3: optimizer state, gradients and, in stage 3, parameters are sharded."""

    def prepare(self, optimizer: Optimizer) -> tuple[Any, Optimizer]:
        self._require_moments(optimizer, "ZeRO")
        use_contiguous_format(self.estimator)
        self.stage = self.accelerator.deepspeed_plugin.zero_stage
        if self.stage == 3:
            self._reject_shared_weights("ZeRO-3")
        self.full_copy = FullParameterCopy(self.estimator) if self.stage == 3 else None
        model, optimizer = super().prepare(optimizer)
        model.optimizer.check_grad_overflow = True  # stages 1 and 2 would check only with fp16
        return model, optimizer

    def full_estimator(self) -> AbstractContextManager[Estimator]:
        return super().full_estimator() if self.full_copy is None else self.full_copy.gathered(self)

    def autocast(self) -> AbstractContextManager[None]:
        enabled = self.model.torch_autocast_enabled()
        return torch.autocast(self.accelerator.device.type, dtype=torch.bfloat16, enabled=enabled)

    @contextmanager
    def micro_batch(self, last: bool) -> Iterator[None]:
        self.model.set_gradient_accumulation_boundary(last)
        yield

    def backward(self, loss: Tensor) -> None:
        self.model.backward(loss * self.accelerator.num_processes, scale_wrt_gas=False)
        if not self.model.is_gradient_accumulation_boundary():
            self.model.step()  # only counts the micro-batch

    def update(self, sound: Tensor) -> tuple[Tensor | float, bool]:
        if not sound:
            return math.nan, False
        self.model.step()  # checks for an overflow itself, and then leaves the weights unchanged
        norm = math.inf if self.model.optimizer.overflow else self.model.get_global_grad_norm()
        return norm, math.isfinite(norm)

    def local_shard(self, parameter: Any) -> Tensor:
        return parameter.ds_tensor.detach() if self.stage == 3 else parameter.detach()

    def shard(self, parameter: Any, full: Tensor) -> Tensor:
        if self.stage < 3:
            return full
        size = parameter.ds_tensor.ds_numel
        start = size * dist.get_rank(parameter.ds_process_group)
        local = full.flatten()[start : start + size]
        return torch.cat([local, local.new_zeros(size - len(local))])  # the last rank's shard is padded

    def full_tensor(self, parameter: Any) -> Tensor:
        if self.stage < 3:
            return parameter.detach()
        from deepspeed.runtime.zero import GatheredParameters

        with GatheredParameters([parameter]):
            return parameter.detach().clone()

    def sync_partitions(self) -> None:
        if self.stage < 3:
            return
        from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

        full = [p for p in self.parameters.values() if p.ds_status == ZeroParamStatus.AVAILABLE]
        if full:  # small ones, which stay full, still have the old values
            full[0].partition(full)
            full[0].all_gather(full)

    @property
    def inner_optimizer(self) -> Optimizer:
        return self.model.optimizer.optimizer

    def has_state(self, parameter: Any) -> bool:
        return bool(self.inner_optimizer.state) and parameter.requires_grad

    def optimizer_state(self) -> dict[str, Tensor]:
        if self.inner_optimizer.state:
            self._link_optimizer_state()
        return super().optimizer_state()

    def moment(self, parameter: Any, moment: str) -> Tensor:
        from deepspeed.utils import safe_get_full_optimizer_state

        return safe_get_full_optimizer_state(parameter, moment)

    def load_optimizer_state(self, state: Mapping[str, Tensor]) -> None:
        if "step" in state:
            self._allocate_state(state["step"])
        super().load_optimizer_state(state)

    def _allocate_state(self, step: Tensor) -> None:
        """Allocate AdamW's state, which its first update would do; a resumed run needs it before."""
        zero = self.model.optimizer
        on_host = not isinstance(self.inner_optimizer, AdamW)  # DeepSpeed's CPU Adam counts in Python integers
        flat = zero.fp32_partitioned_groups_flat if self.stage == 3 else zero.single_partition_of_fp32_groups
        for group in flat:
            state = {moment: torch.zeros_like(group) for moment in MOMENTS}
            self.inner_optimizer.state[group] = {"step": int(step) if on_host else self._step_of(group, step), **state}
        self._link_optimizer_state()

    def set_state(self, parameter: Any, step: Tensor, state: Mapping[str, Tensor]) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        for name, value in state.items():
            if self.stage < 3:
                safe_set_full_optimizer_state(parameter, value, name)
            else:
                safe_set_local_optimizer_state(parameter, self.shard(parameter, value), name)

    def _link_optimizer_state(self) -> None:
        """Let stages 1 and 2 find every parameter's state. DeepSpeed itself looks once, when only the first of several
        groups has been updated."""
        if self.stage < 3:
            self.model.optimizer._hp_optimizer_states_linked = False
            self.model.optimizer._lazy_init_hp_params_optimizer_state()
