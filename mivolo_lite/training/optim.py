"""The optimizer, by timm's name, without weight decay on norms and biases; and its options."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from inspect import signature
from operator import itemgetter
from typing import Annotated, Any, Literal

import timm
from timm.optim import create_optimizer_v2, get_optimizer_class, get_optimizer_info, list_optimizers
from torch import nn
from torch.optim import Optimizer

from mivolo_lite.errors import UserError, first_line
from mivolo_lite.ranges import float_range, int_range
from mivolo_lite.training.balance import BalanceConfig
from mivolo_lite.training.dro import DroConfig
from mivolo_lite.training.param_groups import lr_scales
from mivolo_lite.wording import did_you_mean

ADAMW = "adamw"

Schedule = Literal["cosine", "linear", "poly", "tanh", "step", "multistep", "plateau", "constant"]


@dataclass
class OptimConfig:
    """Options of the optimization.

    Attributes:
        epochs: passes over the training data.
        global_batch: samples of one optimizer step, over all processes and micro-batches.
        micro_batch: most samples of one forward pass in one process; null for no limit. Accumulation follows from it.
        name: of the optimizer, one of ``timm.optim.list_optimizers()``.
        options: the optimizer's own, as in ``{momentum: 0.9}``; by default what timm says.
        lr: highest learning rate.
        min_lr: lowest learning rate, at the end of the schedule.
        schedule: course of the learning rate after the warm-up: ``cosine``, ``linear``, ``poly`` or ``tanh`` down to
            ``min_lr``, ``step``, ``multistep`` or ``plateau`` by ``decay_rate``, or ``constant``.
        decay_epochs: of ``step``: passes over the data between two decays.
        decay_milestones: of ``multistep``: passes over the data at which it decays.
        plateau_patience: of ``plateau``: evaluations without a lower error that are waited for; the next one decays.
        decay_rate: of ``step``, ``multistep`` and ``plateau``: factor of the learning rate.
        power: of ``poly``.
        warmup_epochs: passes over which the learning rate has its linear warm-up.
        layer_decay: factor of the learning rate from one layer of a timm backbone to the one before it; 1 for none.
        weight_decay: on weight matrices and kernels.
        beta1: AdamW's first moment decay; other optimizers have theirs in ``options``.
        beta2: AdamW's second moment decay.
        clip_norm: largest gradient norm, of all parameters that learn, or will; 0 for no clipping.
        gender_weight: weight of the gender loss against the age loss, which is in its method's own unit: at 1 both pull
            alike at the start; 0 to train age alone.
        gender_smoothing: label smoothing of the gender loss: share of the target that is spread over both.
        teachers: checkpoints whose answers to the training images are learnt in addition to the labels (distillation).
        teacher_weight: weight of the distance to the teachers, in answers and features.
        teacher_features: weight of the distance to the teachers' pooled features against that to their answers; 0 for
            none.
        ema_decay: of the EMA weights that are evaluated and kept, at most 1 - n^(-2/3) at step n; 0 for no averaging.
        swa_start: stochastic weight averaging: passes over the data after which the weights at each evaluation are
            averaged, equally, and the average is evaluated and kept; null for none.
        swa_lr: learning rate from then on; null for that of the schedule.
        balance: larger weights for rare samples.
        dro: larger weights for the subgroups that the model does badly on.
    """

    epochs: Annotated[float, float_range(0, 1e6, low_open=True)] = 10.0
    global_batch: Annotated[int, int_range(1, 10**6)] = 128
    micro_batch: Annotated[int, int_range(1, 10**6)] | None = None
    name: str = ADAMW
    options: dict[str, Any] = field(default_factory=dict)
    lr: Annotated[float, float_range(0, 1e38, low_open=True)] = 1e-3
    min_lr: Annotated[float, float_range(0, 1e3)] = 1e-6
    schedule: Schedule = "cosine"
    decay_epochs: Annotated[float, float_range(0, low_open=True)] = 10.0
    decay_milestones: list[Annotated[float, float_range(0)]] = field(default_factory=list)
    plateau_patience: Annotated[int, int_range(0, 10**6)] = 3
    decay_rate: Annotated[float, float_range(0, 1)] = 0.1
    power: Annotated[float, float_range(0, 100, low_open=True)] = 1.0
    warmup_epochs: Annotated[float, float_range(0, 1e6)] = 1.0
    layer_decay: Annotated[float, float_range(0, 1, low_open=True)] = 1.0
    weight_decay: Annotated[float, float_range(0, 1e3)] = 0.05
    beta1: Annotated[float, float_range(0, 1, high_open=True)] = 0.9
    beta2: Annotated[float, float_range(0, 1, high_open=True)] = 0.999
    clip_norm: Annotated[float, float_range(0)] = 5.0
    gender_weight: Annotated[float, float_range(0)] = 1.0
    gender_smoothing: Annotated[float, float_range(0, 1, high_open=True)] = 0.0
    teachers: list[str] = field(default_factory=list)
    teacher_weight: Annotated[float, float_range(0)] = 1.0
    teacher_features: Annotated[float, float_range(0)] = 0.0
    ema_decay: Annotated[float, float_range(0, 1, high_open=True)] = 0.0
    swa_start: Annotated[float, float_range(0)] | None = None
    swa_lr: Annotated[float, float_range(0, 1e38, low_open=True)] | None = None
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    dro: DroConfig = field(default_factory=DroConfig)

    def __post_init__(self) -> None:
        self.name = self.name.lower()
        require_optimizer(self.name)
        if self.name != ADAMW and (self.beta1, self.beta2) != (OptimConfig.beta1, OptimConfig.beta2):
            raise UserError(f"optim.name {self.name}: beta1 and beta2 are AdamW's; give its own in optim.options")
        if "betas" in self.options and (self.beta1, self.beta2) != (OptimConfig.beta1, OptimConfig.beta2):
            raise UserError("optim.options: betas are beta1 and beta2 as well; give the one or the other")
        if self.schedule == "multistep" and not self.decay_milestones:
            raise UserError("optim.schedule multistep: optim.decay_milestones is missing, as in [10, 20]")
        if self.teacher_features and not self.teachers:
            raise UserError("optim.teacher_features: there are no optim.teachers whose features to learn")
        if self.teacher_features and not self.teacher_weight:
            raise UserError("optim.teacher_weight 0: optim.teacher_features counts times it; give more, or both 0")
        if self.swa_start is None and self.swa_lr is not None:
            raise UserError("optim.swa_lr: is of stochastic weight averaging; give optim.swa_start as well")
        if self.swa_start is not None and self.ema_decay:
            raise UserError("optim.swa_start: optim.ema_decay averages the weights already; set one of the two")
        if self.swa_start is not None and self.swa_start >= self.epochs:
            raise UserError(f"optim.swa_start {self.swa_start:g}: the training ends after {self.epochs:g} epochs")


_FUSED = ("cpu", "cuda")
"""Devices with a fused AdamW: on a CPU it takes a third of the time."""


_MOVES_FROZEN = ("madgrad", "madgradw")
"""Optimizers that add a constant to the learning rate, so that 0 still updates. No other one that ran on a CPU does."""


def require_optimizer(name: str) -> None:
    """Raise UserError unless timm has an optimizer of this name that a step can use and a checkpoint can hold."""
    if name not in list_optimizers():
        wrapped = name.removeprefix("lookahead_")
        if wrapped != name:
            raise UserError(
                f"optim.name: {name!r:.60}: Lookahead's slow weights are in no checkpoint here; use {wrapped}, with "
                "optim.ema_decay for averages"
            )
        hint = did_you_mean(name, map(str, list_optimizers()), "see timm.optim.list_optimizers()", most=3)
        raise UserError(f"optim.name: timm {timm.__version__} has no optimizer {name!r:.60}{hint}")
    if get_optimizer_info(name).second_order:
        raise UserError(f"optim.name: {name} needs second derivatives, which a step does not compute; use another")
    if name.startswith("kron"):
        raise UserError(f"optim.name: {name} has random numbers of its own, which no checkpoint holds; use another")


def build_optimizer(module: nn.Module, config: OptimConfig, frozen: Collection[str] = ()) -> Optimizer:
    """timm's optimizer over the trainable parameters, on their device.

    Args:
        module: the model.
        config: options.
        frozen: names of parameters whose learning rate ``set_learning_rate`` may set to 0.

    Raises:
        UserError: the optimizer does not accept its options, cannot run here, or would update frozen parameters.
    """
    groups = parameter_groups(module, config, frozen)
    if config.name in _MOVES_FROZEN and any(group["can_freeze"] for group in groups):
        raise UserError(f"optim.name {config.name}: also moves what train.freeze holds; take another optimizer")
    if config.name == ADAMW:
        is_fused = all(parameter.device.type in _FUSED for parameter in module.parameters())
        options = {"betas": (config.beta1, config.beta2), "fused": is_fused or None} | config.options
    else:
        options = config.options
    try:
        _require_own(config.name, config.options)
        return create_optimizer_v2(groups, config.name, config.lr, config.weight_decay, **options)
    except (TypeError, ValueError, AssertionError, ImportError, RuntimeError) as error:
        raise UserError(f"optim.name {config.name}, with options {options}: {first_line(error)}") from None


def _require_own(name: str, options: Collection[str]) -> None:
    """Raise ValueError for an option that the optimizer does not have: timm's factory drops some, and adds its own."""
    parameters = signature(get_optimizer_class(name, bind_defaults=False)).parameters
    available = [option for option in parameters if option not in ("params", "lr", "weight_decay")]
    for option in options:
        if option not in available:
            hint = did_you_mean(option, available, "those are " + ", ".join(available))
            raise ValueError(f"{option} is none of its own{hint}")


def parameter_groups(module: nn.Module, config: OptimConfig, frozen: Collection[str]) -> list[dict[str, Any]]:
    """The trainable parameters, grouped by weight decay, learning-rate factor and freezing."""
    decayed, scales = decayed_names(module), lr_scales(module, config.layer_decay)
    groups: dict[tuple, list[nn.Parameter]] = defaultdict(list)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            groups[config.weight_decay if name in decayed else 0.0, scales[name], name in frozen].append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "lr_scale": scale, "can_freeze": can_freeze}
        for (decay, scale, can_freeze), parameters in sorted(groups.items(), key=itemgetter(0), reverse=True)
    ]


def decayed_names(module: nn.Module) -> set[str]:
    """The parameters with weight decay: the matrices and kernels of linear layers and convolutions.

    Norms, biases, gains, tokens, position tables and the names in timm's ``no_weight_decay()`` have none. The module
    decides, not the number of dimensions: MiVOLO's norm and a class token have three.
    """
    matrices, spared = set(), set()
    for path, submodule in module.named_modules():
        prefix = f"{path}." if path else ""
        if not _is_norm_or_table(submodule):
            parameters = submodule.named_parameters(recurse=False)
            matrices |= {prefix + name for name, parameter in parameters if "weight" in name and parameter.ndim >= 2}
        if hasattr(submodule, "no_weight_decay"):
            spared |= {prefix + name for name in submodule.no_weight_decay()}
    return matrices - spared


def _is_norm_or_table(module: nn.Module) -> bool:
    # torch's and timm's norms have no common base class, but all of them, and MiVOLO's, have "Norm" in their names.
    return isinstance(module, nn.Embedding) or any("Norm" in kind.__name__ for kind in type(module).__mro__)
