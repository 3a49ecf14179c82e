"""The engines that can train: what each of them does to a step, and where it keeps weights and optimizer state.

The rest of training uses full tensors by name, or the local shard of a tensor: the slice that this rank holds.
"""

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, AdamW, Optimizer

from mivolo_lite.distributed.compilation import for_numbers_of
from mivolo_lite.distributed.optimizer_state import load_named_state, named_state
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.images.packed import Images

MOMENTS = ("exp_avg", "exp_avg_sq")
_SHARDED = 100_000
"""Fewest parameters of a block that FSDP2 gathers by itself; smaller ones are gathered
with the module around them."""

_CAST = (nn.Linear, nn.Conv2d)
"""What autocast computes in bfloat16, weights included."""


class DataParallel:
    """One process, or torch's DistributedDataParallel: every rank holds everything.

    Args:
        accelerator: joins the ranks.
        estimator: its final weights must be loaded; its parameters keep their names.
        optimizer: over them; AdamW for engines that shard its state.
        clip_norm: largest gradient norm, 0 for none.

    Attributes:
        is_compiled: whether the estimator's forward pass is compiled.
        model: what to call in training.
        optimizer: the one whose learning rate counts.
        parameters: by their names, each once.
        shared: the other names of parameters that several layers share, and the name in ``parameters``.
        has_moments: whether the optimizer is AdamW, whose state every engine knows.
    """

    is_compiled = False

    def __init__(self, accelerator: Accelerator, estimator: Estimator, optimizer: Optimizer, clip_norm: float):
        self.accelerator, self.estimator, self.clip_norm = accelerator, estimator, clip_norm
        self.parameters = dict(estimator.named_parameters())
        self.shared = shared_names(estimator)
        self.has_moments = isinstance(optimizer, AdamW) and not optimizer.defaults["amsgrad"]
        self.model, self.optimizer = self.prepare(optimizer)

    def prepare(self, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        return self.accelerator.prepare(self.estimator, optimizer)

    def _reject_shared_weights(self, engine: str) -> None:
        if self.shared:
            name, first_name = next(iter(self.shared.items()))
            raise UserError(f"model: {name} is also {first_name}, and {engine} cannot share weights; use ddp or zero2")

    def _require_moments(self, optimizer: Optimizer, engine: str) -> None:
        is_stateless = isinstance(optimizer, SGD) and not optimizer.defaults["momentum"]
        if not self.has_moments and not is_stateless:
            raise UserError(f"optim.name: {engine} shards the state of adamw without amsgrad alone; use it, or ddp")

    def autocast(self):
        """The run's mixed precision, for a forward pass of the estimator itself."""
        return self.accelerator.autocast()

    @contextmanager
    def full_estimator(self) -> Iterator[Estimator]:
        """The estimator for evaluation, with full parameters on every rank. All ranks must enter it."""
        yield self.estimator

    def micro_batch(self, last: bool):
        """Around the forward and backward pass of a micro-batch: gradients travel with the last one alone."""
        return nullcontext() if last else self.accelerator.no_sync(self.model)

    def forward(self, images: Mapping[str, Images | int]) -> dict[str, Tensor]:
        """The model's outputs of a batch's ``images()``, in the run's mixed precision."""
        with for_numbers_of(images) if self.is_compiled else nullcontext():
            return self.model(**images)

    def backward(self, loss: Tensor) -> None:
        """Gradients of this rank's share of the global loss, which is the sum over ranks and micro-batches."""
        # Engines average gradients over the ranks.
        self.accelerator.backward(loss * self.accelerator.num_processes)

    def update(self, sound: Tensor) -> tuple[Tensor | float, bool]:
        """Clip, step, and zero the gradients.

        Args:
            sound: () bool, whether the step's losses are finite, the same on every rank.

        Returns:
            The gradients' norm before clipping, and whether it and the losses are finite, the same on every rank. Where
            they are not, the weights stay as they were. With fp16 a norm may overflow: the gradient scaler leaves the
            weights as they were as well, and tries a smaller scale in the next step.
        """
        norm = self.accelerator.clip_grad_norm_(self.parameters.values(), self.clip_norm or float("inf"))
        return norm, self._step_if_finite(sound, norm)

    def _step_if_finite(self, sound: Tensor, norm: Tensor) -> bool:
        scaler = self.accelerator.scaler
        # A scale below 1 means that the gradients overflow at any.
        fits = torch.isfinite(norm) if scaler is None else scaler.get_scale() >= 1
        # Read once: it waits for the backward pass. The update that follows is a few milliseconds of launches.
        is_finite = bool(sound & fits)
        if is_finite:
            self.optimizer.step()
        self.optimizer.zero_grad()
        return is_finite

    def local_shard(self, parameter: Tensor) -> Tensor:
        """The shard of a parameter that this rank holds, to be read or written in place."""
        return parameter.detach()

    def shard(self, parameter: Tensor, full: Tensor) -> Tensor:
        """This rank's shard of a full tensor that has the parameter's shape."""
        return full

    def full_tensor(self, parameter: Tensor) -> Tensor:
        """All of a parameter, on every rank. All ranks must call it."""
        return parameter.detach()

    def sync_partitions(self) -> None:
        """To be called when local shards were written."""

    def weights(self) -> dict[str, Tensor]:
        """The estimator's full state dict on the main process's CPU, nothing elsewhere. All ranks must call it."""
        weights = {}
        for name, tensor in self.estimator.state_dict().items():
            parameter = self.parameters.get(self.shared.get(name, name))
            full = tensor if parameter is None else self.full_tensor(parameter)
            if self.accelerator.is_main_process:
                weights[name] = full.cpu().contiguous()
        return weights

    def optimizer_state(self) -> dict[str, Tensor]:
        """``exp_avg.NAME`` and ``exp_avg_sq.NAME`` of every parameter that has them, and AdamW's ``step``; of other
        optimizers what ``named_state`` gives.

        Full tensors, on the main process's CPU; nothing elsewhere. All ranks must call it.
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
        """The optimizer itself."""
        return getattr(self.optimizer, "optimizer", self.optimizer)

    def has_state(self, parameter: Tensor) -> bool:
        return MOMENTS[0] in self.inner_optimizer.state.get(parameter, {})

    def moment(self, parameter: Tensor, moment: str) -> Tensor:
        return self.inner_optimizer.state[parameter][moment]

    def optimizer_step(self) -> float:
        return max(float(state["step"]) for state in self.inner_optimizer.state.values() if "step" in state)

    def set_state(self, parameter: Tensor, step: Tensor, state: Mapping[str, Tensor]) -> None:
        # A copy has the parameter's memory format, which decides in what order the update reads.
        state = {name: torch.zeros_like(parameter).copy_(value) for name, value in state.items()}
        self.inner_optimizer.state[parameter] = {"step": self._step_of(parameter, step), **state}

    def _step_of(self, parameter: Tensor, step: Tensor) -> Tensor:
        """Where AdamW counts the steps of a parameter: fused, on its device; otherwise on the host."""
        device = parameter.device if self.inner_optimizer.defaults.get("fused") else "cpu"
        return torch.empty((), device=device).copy_(step)


class FullParameterCopy:
    """A copy in the host's memory of an estimator whose parameters are about to be sharded over the ranks.

    In evaluation a model skips the backbone of an image that its whole batch lacks. On sharded parameters, the other
    ranks would wait for ever for this rank's shards of that backbone.
    """

    def __init__(self, estimator: Estimator):
        self.estimator = copy.deepcopy(estimator).cpu().requires_grad_(False)

    @contextmanager
    def gathered(self, engine: DataParallel) -> Iterator[Estimator]:
        """On the engine's device, with its weights. All ranks must enter it."""
        estimator, current = self.estimator.to(engine.accelerator.device), engine.estimator.state_dict()
        for name, tensor in estimator.state_dict().items():
            parameter = engine.parameters.get(name)
            tensor.copy_(current[name] if parameter is None else engine.full_tensor(parameter))
        yield estimator
        estimator.cpu()


class FullySharded(DataParallel):
    """torch's FSDP2: every rank holds a slice of every parameter, and of its optimizer state and gradient.

    With bf16, the matrices of blocks are gathered in it, and their gradients reduced in float32.
    """

    def prepare(self, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        self._reject_shared_weights("FSDP2")
        self._require_moments(optimizer, "FSDP2")
        _use_contiguous_format(self.estimator)
        self.full_copy = FullParameterCopy(self.estimator)
        mesh = init_device_mesh(self.accelerator.device.type, (self.accelerator.num_processes,))
        called = _called_modules(self.estimator)
        is_mixed, cast = self.accelerator.mixed_precision == "bf16", set()
        for block in _blocks(self.estimator):
            if block not in called:
                continue
            matrices = [layer for layer in block.modules() if layer in called - cast and isinstance(layer, _CAST)]
            if is_mixed and matrices:
                # Autocast would cast them behind the gather: half of it is saved, and nothing is computed otherwise.
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

    def full_estimator(self):
        return self.full_copy.gathered(self)

    def forward(self, images: Mapping[str, Images | int]) -> dict[str, Tensor]:
        with self.autocast():  # into the others' models, Accelerate or DeepSpeed puts it
            return super().forward(images)

    @contextmanager
    def micro_batch(self, last: bool) -> Iterator[None]:
        self.model.set_requires_gradient_sync(last)
        yield

    def update(self, sound: Tensor) -> tuple[Tensor, bool]:
        norm = clip_grad_norm_(self.parameters.values(), self.clip_norm or float("inf")).full_tensor()
        return norm, self._step_if_finite(sound, norm)

    def local_shard(self, parameter: Tensor) -> Tensor:
        return parameter.detach().to_local()

    def shard(self, parameter: Tensor, full: Tensor) -> Tensor:
        return self._shard(parameter, full).to_local()

    def full_tensor(self, parameter: Tensor) -> Tensor:
        return parameter.detach().full_tensor()

    def moment(self, parameter: Tensor, moment: str) -> Tensor:
        return self.inner_optimizer.state[parameter][moment].full_tensor()

    def set_state(self, parameter: Tensor, step: Tensor, state: Mapping[str, Tensor]) -> None:
        state = {name: self._shard(parameter, value) for name, value in state.items()}
        self.inner_optimizer.state[parameter] = {"step": self._step_of(parameter, step), **state}

    def _shard(self, parameter: Tensor, full: Tensor) -> Tensor:
        from torch.distributed.tensor import distribute_tensor

        full = full.to(self.accelerator.device)
        return distribute_tensor(full, parameter.device_mesh, parameter.placements, src_data_rank=None)


class Zero(DataParallel):
    """DeepSpeed's ZeRO 1, 2 and 3: optimizer state, gradients and, in stage 3, parameters are sharded."""

    def prepare(self, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        self._require_moments(optimizer, "ZeRO")
        _use_contiguous_format(self.estimator)
        self.stage = self.accelerator.deepspeed_plugin.zero_stage
        if self.stage == 3:
            self._reject_shared_weights("ZeRO-3")
        self.full_copy = FullParameterCopy(self.estimator) if self.stage == 3 else None
        model, optimizer = super().prepare(optimizer)
        model.optimizer.check_grad_overflow = True  # stages 1 and 2 would look for it with fp16 alone
        return model, optimizer

    def full_estimator(self):
        return super().full_estimator() if self.full_copy is None else self.full_copy.gathered(self)

    def autocast(self):
        enabled = self.model.torch_autocast_enabled()
        return torch.autocast(self.accelerator.device.type, dtype=torch.bfloat16, enabled=enabled)

    @contextmanager
    def micro_batch(self, last: bool) -> Iterator[None]:
        self.model.set_gradient_accumulation_boundary(last)
        yield

    def backward(self, loss: Tensor) -> None:
        self.model.backward(loss * self.accelerator.num_processes, scale_wrt_gas=False)
        if not self.model.is_gradient_accumulation_boundary():
            self.model.step()  # counts the micro-batch and does nothing else

    def update(self, sound: Tensor) -> tuple[Tensor | float, bool]:
        if not sound:
            return math.nan, False
        self.model.step()  # looks for an overflow by itself, and then leaves the weights as they were
        norm = math.inf if self.model.optimizer.overflow else self.model.get_global_grad_norm()
        return norm, math.isfinite(norm)

    def local_shard(self, parameter: Tensor) -> Tensor:
        return parameter.ds_tensor.detach() if self.stage == 3 else parameter.detach()

    def shard(self, parameter: Tensor, full: Tensor) -> Tensor:
        if self.stage < 3:
            return full
        size = parameter.ds_tensor.ds_numel
        start = size * dist.get_rank(parameter.ds_process_group)
        local = full.flatten()[start : start + size]
        return torch.cat([local, local.new_zeros(size - len(local))])  # the last rank's shard is padded

    def full_tensor(self, parameter: Tensor) -> Tensor:
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
        if full:  # the small ones, which stay full, hold what was there before
            full[0].partition(full)
            full[0].all_gather(full)

    @property
    def inner_optimizer(self) -> Optimizer:
        return self.model.optimizer.optimizer

    def has_state(self, parameter: Tensor) -> bool:
        return bool(self.inner_optimizer.state) and parameter.requires_grad

    def optimizer_state(self) -> dict[str, Tensor]:
        if self.inner_optimizer.state:
            self._link_optimizer_state()
        return super().optimizer_state()

    def moment(self, parameter: Tensor, moment: str) -> Tensor:
        from deepspeed.utils import safe_get_full_optimizer_state

        return safe_get_full_optimizer_state(parameter, moment)

    def load_optimizer_state(self, state: Mapping[str, Tensor]) -> None:
        if "step" in state:
            self._allocate_state(state["step"])
        super().load_optimizer_state(state)

    def _allocate_state(self, step: Tensor) -> None:
        """AdamW allocates its state in its first update; a resumed run needs it before."""
        zero = self.model.optimizer
        on_host = not isinstance(self.inner_optimizer, AdamW)  # DeepSpeed's CPU Adam counts in plain integers
        flat = zero.fp32_partitioned_groups_flat if self.stage == 3 else zero.single_partition_of_fp32_groups
        for group in flat:
            state = {moment: torch.zeros_like(group) for moment in MOMENTS}
            self.inner_optimizer.state[group] = {"step": int(step) if on_host else self._step_of(group, step), **state}
        self._link_optimizer_state()

    def set_state(self, parameter: Tensor, step: Tensor, state: Mapping[str, Tensor]) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        for name, value in state.items():
            if self.stage < 3:
                safe_set_full_optimizer_state(parameter, value, name)
            else:
                safe_set_local_optimizer_state(parameter, self.shard(parameter, value), name)

    def _link_optimizer_state(self) -> None:
        """Let stages 1 and 2 find every parameter's state. By itself DeepSpeed looks once, when the first of several
        groups was updated and the others have none yet."""
        if self.stage < 3:
            self.model.optimizer._hp_optimizer_states_linked = False
            self.model.optimizer._lazy_init_hp_params_optimizer_state()


ENGINES: dict[str, type[DataParallel]] = {"ddp": DataParallel, "zero": Zero, "fsdp2": FullySharded}


def shared_names(module: nn.Module) -> dict[str, str]:
    """For parameters that several layers share: every other name, and the first one."""
    first_names: dict[nn.Parameter, str] = {}
    named_parameters = module.named_parameters(remove_duplicate=False)
    names = ((name, first_names.setdefault(parameter, name)) for name, parameter in named_parameters)
    return {name: first_name for name, first_name in names if name != first_name}


def _use_contiguous_format(module: nn.Module) -> None:
    """Engines that shard parameters do not support channels-last kernels. Images stay channels-last."""
    module.to(memory_format=torch.contiguous_format)


@torch.no_grad()
def _called_modules(estimator: Estimator) -> set[nn.Module]:
    """The modules whose ``forward`` runs.

    FSDP2 gathers a block's parameters there: those of a stage whose layers a model calls one by one, as SwinFace
    does, would stay sharded.
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
    """The larger members of lists and sequences of modules, inner ones first."""
    for child in module.children():
        yield from _blocks(child)
        listed = isinstance(module, nn.ModuleList | nn.Sequential) and not isinstance(child, nn.ModuleList)
        if listed and sum(parameter.numel() for parameter in child.parameters()) >= _SHARDED:
            yield child
