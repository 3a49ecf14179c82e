"""One process, or torch's DistributedDataParallel; and the interface that all engines share.

The rest of training uses full tensors by name, or the local shard of a tensor: the slice on this rank.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from mivolo_lite.distributed.compilation import with_dynamic_sizes
from mivolo_lite.distributed.optimizer_state import load_named_state, named_state
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.images.packed import Images

MOMENTS = ("exp_avg", "exp_avg_sq")


class DataParallel:
    """One process, or torch's DistributedDataParallel: every rank holds everything.

    Args:
        accelerator: joins the ranks.
        estimator: with its initial weights already loaded; its parameters keep their names.
        optimizer: over them; must be AdamW for engines that shard its state.
        clip_norm: largest gradient norm, 0 for none.

    Attributes:
        is_compiled: whether the estimator's forward pass is compiled.
        model: to call in training.
        optimizer: whose learning rate is used.
        parameters: by name, each once.
        shared: other names of parameters that several layers share, with their names in ``parameters``.
        has_moments: whether the optimizer is AdamW, whose state every engine supports.
    """

    is_compiled = False
    model: Any
    parameters: dict[str, Any]

    def __init__(self, accelerator: Accelerator, estimator: Estimator, optimizer: Optimizer, clip_norm: float):
        self.accelerator, self.estimator, self.clip_norm = accelerator, estimator, clip_norm
        self.parameters = dict(estimator.named_parameters())
        self.shared = shared_names(estimator)
        self.has_moments = isinstance(optimizer, AdamW) and not optimizer.defaults["amsgrad"]
        self.model, self.optimizer = self.prepare(optimizer)

    def prepare(self, optimizer: Optimizer) -> tuple[Any, Optimizer]:
        """The model to call in training, and the optimizer to step. Engines shard the parameters here."""
        return self.accelerator.prepare(self.estimator, optimizer)

    def _reject_shared_weights(self, engine: str) -> None:
        if self.shared:
            name, first_name = next(iter(self.shared.items()))
            raise UserError(f"model: {name} is also {first_name}, and {engine} cannot share weights; use ddp or zero2")

    def _require_moments(self, optimizer: Optimizer, engine: str) -> None:
        is_stateless = isinstance(optimizer, SGD) and not optimizer.defaults["momentum"]
        if not self.has_moments and not is_stateless:
            raise UserError(f"optim.name: {engine} shards the state of adamw without amsgrad alone; use it, or ddp")

    def autocast(self) -> AbstractContextManager[None]:
        """The run's mixed precision, for a forward pass of the estimator itself."""
        return self.accelerator.autocast()

    def full_estimator(self) -> AbstractContextManager[Estimator]:
        """The estimator for evaluation, with full parameters on every rank. All ranks must enter it."""
        return nullcontext(self.estimator)

    def micro_batch(self, last: bool) -> AbstractContextManager[None]:
        """A context for a micro-batch's forward and backward pass: only the last one reduces gradients."""
        return nullcontext() if last else self.accelerator.no_sync(self.model)

    def forward(self, images: Mapping[str, Images | int]) -> dict[str, Tensor]:
        """The model's outputs for a batch's ``images()``, in the run's mixed precision."""
        with with_dynamic_sizes(images) if self.is_compiled else nullcontext():
            return self.model(**images)

    def backward(self, loss: Tensor) -> None:
        """Compute gradients of this rank's share of the global loss, which is the sum over ranks and micro-batches."""
        # Engines average gradients over the ranks.
        self.accelerator.backward(loss * self.accelerator.num_processes)

    def update(self, sound: Tensor) -> tuple[Tensor | float, bool]:
        """Clip, step, and zero the gradients.

        Args:
            sound: () bool, whether the step's losses are finite, equal on every rank.

        Returns:
            The gradients' norm before clipping, and whether it and the losses are finite, equal on every rank. If not,
            the weights stay unchanged. With fp16 the norm may overflow: the gradient scaler then leaves the weights
            unchanged as well, and uses a smaller scale in the next step.
        """
        norm = self.accelerator.clip_grad_norm_(self.parameters.values(), self.clip_norm or float("inf"))
        return norm, self._step_if_finite(sound, norm)

    def _step_if_finite(self, sound: Tensor, norm: Tensor) -> bool:
        scaler = self.accelerator.scaler
        # A scale below 1 means that the gradients overflow at any scale.
        fits = torch.isfinite(norm) if scaler is None else scaler.get_scale() >= 1
        # Read once: it waits for the backward pass. The following update takes a few milliseconds of kernel launches.
        is_finite = bool(sound & fits)
        if is_finite:
            self.optimizer.step()
        self.optimizer.zero_grad()
        return is_finite

    def local_shard(self, parameter: Tensor) -> Tensor:
        """The shard of a parameter on this rank, to read or to write in place."""
        return parameter.detach()

    def shard(self, parameter: Tensor, full: Tensor) -> Tensor:
        """This rank's shard of a full tensor with the parameter's shape."""
        return full

    def full_tensor(self, parameter: Tensor) -> Tensor:
        """The full parameter, on every rank. All ranks must call it."""
        return parameter.detach()

    def sync_partitions(self) -> None:
        """To be called after writing to local shards."""

    def weights(self) -> dict[str, Tensor]:
        """The estimator's full state dict on the main process's CPU, empty elsewhere. All ranks must call it."""
        weights = {}
        for name, tensor in self.estimator.state_dict().items():
            parameter = self.parameters.get(self.shared.get(name, name))
            full = tensor if parameter is None else self.full_tensor(parameter)
            if self.accelerator.is_main_process:
                weights[name] = full.cpu().contiguous()
        return weights

    def optimizer_state(self) -> dict[str, Tensor]:
        """``exp_avg.NAME`` and ``exp_avg_sq.NAME`` of every parameter that has them, and AdamW's ``step``; for other
        optimizers the result of ``named_state``.

        These are full tensors on the main process's CPU, and nothing elsewhere. All ranks must call it.
        """
        if not self.has_moments:
            is_main = self.accelerator.is_main_process
            return named_state(self.inner_optimizer, self.parameters) if is_main else {}
        state = {}
        for name, parameter in self.parameters.items():
            for moment in MOMENTS if self.has_state(parameter) else ():
                full = self.moment(parameter, moment)
                if self.accelerator.is_main_process:
                    state[f"{moment}.{name}"] = full.cpu().contiguous()
        if self.accelerator.is_main_process and state:
            state["step"] = torch.tensor(float(self.optimizer_step()))
        return state

    def load_optimizer_state(self, state: Mapping[str, Tensor]) -> None:
        """Load what ``optimizer_state`` returned, on any engine at any world size."""
        if not self.has_moments:
            load_named_state(self.inner_optimizer, self.parameters, state)
            return
        if "step" not in state:  # saved before the first update
            return
        step = state["step"]
        for name, parameter in self.parameters.items():
            if f"{MOMENTS[0]}.{name}" in state:
                self.set_state(parameter, step, {moment: state[f"{moment}.{name}"] for moment in MOMENTS})

    @property
    def inner_optimizer(self) -> Optimizer:
        """The optimizer without its wrapper."""
        return getattr(self.optimizer, "optimizer", self.optimizer)

    def has_state(self, parameter: Tensor) -> bool:
        """Whether AdamW has moments for a parameter, as after its first update."""
        return MOMENTS[0] in self.inner_optimizer.state.get(parameter, {})

    def moment(self, parameter: Tensor, moment: str) -> Tensor:
        """One of ``MOMENTS`` of a parameter: a full tensor on every rank. All ranks must call it."""
        return self.inner_optimizer.state[parameter][moment]

    def optimizer_step(self) -> float:
        """AdamW's number of updates."""
        return max(float(state["step"]) for state in self.inner_optimizer.state.values() if "step" in state)

    def set_state(self, parameter: Tensor, step: Tensor, state: Mapping[str, Tensor]) -> None:
        """Set a parameter's number of updates, and its moments from full tensors by name."""
        # A copy gets the parameter's memory format, which determines the order of reading in the update.
        state = {name: torch.zeros_like(parameter).copy_(value) for name, value in state.items()}
        self.inner_optimizer.state[parameter] = {"step": self._step_of(parameter, step), **state}

    def _step_of(self, parameter: Tensor, step: Tensor) -> Tensor:
        """A parameter's number of updates on AdamW's device for it: the parameter's if fused, otherwise the host."""
        device = parameter.device if self.inner_optimizer.defaults.get("fused") else "cpu"
        return torch.empty((), device=device).copy_(step)


def shared_names(module: nn.Module) -> dict[str, str]:
    """For parameters that several layers share: every other name, with the first one."""
    first_names: dict[nn.Parameter, str] = {}
    named_parameters = module.named_parameters(remove_duplicate=False)
    names = ((name, first_names.setdefault(parameter, name)) for name, parameter in named_parameters)
    return {name: first_name for name, first_name in names if name != first_name}
