"""AdamW without decay on norms and biases, and a learning rate that is a function of the step alone."""

import math
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Annotated

from torch import nn
from torch.optim import AdamW, Optimizer

from mivolo_lite.ranges import float_range, int_range
from mivolo_lite.training.balance import BalanceConfig
from mivolo_lite.training.dro import DroConfig
from mivolo_lite.training.param_groups import lr_scales


@dataclass
class OptimConfig:
    """Options of the optimization.

    Attributes:
        epochs: passes over the training data.
        global_batch: samples of one optimizer step, over all processes and micro-batches.
        micro_batch: most samples of one forward pass in one process; null for no limit. Accumulation follows from it.
        lr: highest learning rate.
        min_lr: learning rate at the end of the cosine.
        warmup_epochs: passes over which the learning rate has its linear warm-up.
        layer_decay: factor of the learning rate from one layer of a timm backbone to the one before it; 1 for none.
        weight_decay: AdamW's, on weight matrices and kernels.
        beta1: AdamW's first moment decay.
        beta2: AdamW's second moment decay.
        clip_norm: largest gradient norm; 0 for no clipping.
        gender_weight: weight of the gender loss against the age loss, which is in its method's own unit: at 1 both pull
            alike at the start; 0 to train age alone.
        teachers: checkpoints whose answers to the training images are learnt in addition to the labels (distillation).
        teacher_weight: weight of the distance to the teachers' answers.
        ema_decay: decay of the EMA weights that are evaluated and kept; 0 for no averaging.
        balance: larger weights for rare samples.
        dro: larger weights for the subgroups that the model does badly on.
    """

    epochs: Annotated[float, float_range(0, 1e6, low_open=True)] = 10.0
    global_batch: Annotated[int, int_range(1, 10**6)] = 128
    micro_batch: Annotated[int, int_range(1, 10**6)] | None = None
    lr: Annotated[float, float_range(0, 1e38, low_open=True)] = 1e-3
    min_lr: Annotated[float, float_range(0, 1e3)] = 1e-6
    warmup_epochs: Annotated[float, float_range(0, 1e6)] = 1.0
    layer_decay: Annotated[float, float_range(0, 1, low_open=True)] = 1.0
    weight_decay: Annotated[float, float_range(0, 1e3)] = 0.05
    beta1: Annotated[float, float_range(0, 1, high_open=True)] = 0.9
    beta2: Annotated[float, float_range(0, 1, high_open=True)] = 0.999
    clip_norm: Annotated[float, float_range(0)] = 5.0
    gender_weight: Annotated[float, float_range(0)] = 1.0
    teachers: list[str] = field(default_factory=list)
    teacher_weight: Annotated[float, float_range(0)] = 1.0
    ema_decay: Annotated[float, float_range(0, 1, high_open=True)] = 0.0
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    dro: DroConfig = field(default_factory=DroConfig)


_FUSED = ("cpu", "cuda")
"""Devices for which torch has AdamW as one kernel: on a CPU, a third of the time of one operation after the other."""


def build_optimizer(module: nn.Module, config: OptimConfig, frozen: Collection[str] = ()) -> Optimizer:
    """AdamW (Loshchilov and Hutter, 2019) over the parameters that are trained, on the device where they are.

    Args:
        module: the model.
        config: options.
        frozen: names of parameters whose learning rate ``set_learning_rate`` may set to 0.
    """
    decayed, scales = decayed_names(module), lr_scales(module, config.layer_decay)
    groups: dict[tuple, list[nn.Parameter]] = defaultdict(list)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            groups[config.weight_decay if name in decayed else 0.0, scales[name], name in frozen].append(parameter)
    is_fused = all(parameter.device.type in _FUSED for parameter in module.parameters())
    return AdamW(
        [
            {"params": parameters, "weight_decay": decay, "lr_scale": scale, "can_freeze": can_freeze}
            for (decay, scale, can_freeze), parameters in sorted(groups.items(), key=itemgetter(0), reverse=True)
        ],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        fused=is_fused or None,
    )


def decayed_names(module: nn.Module) -> set[str]:
    """The parameters that weight decay is for: the matrices and kernels of linear layers and convolutions.

    Norms, biases, gains, tokens, position tables and what timm's ``no_weight_decay()`` names are left as they are. The
    module decides, not the number of dimensions: MiVOLO's norm has three, and so has a class token.
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
    # torch's and timm's norms have no common class, but all of them, and MiVOLO's, are called so.
    return isinstance(module, nn.Embedding) or any("Norm" in kind.__name__ for kind in type(module).__mro__)


def learning_rate(step: float, total_steps: float, steps_per_epoch: float, config: OptimConfig) -> float:
    """Linear warm-up, then a cosine from ``lr`` to ``min_lr`` (Loshchilov and Hutter, 2017).

    A function of the step has no state to save, and does not depend on the world size.
    """
    warmup = config.warmup_epochs * steps_per_epoch
    if step < warmup:
        return config.lr * (step + 1) / math.ceil(warmup)
    share = (step - warmup) / max(1.0, total_steps - warmup)
    return config.min_lr + (config.lr - config.min_lr) * (1 + math.cos(math.pi * share)) / 2


def set_learning_rate(optimizer: Optimizer, lr: float, frozen: bool = False) -> None:
    """The learning rate of every group: its share of ``lr``, and 0 for what is frozen now."""
    for group in optimizer.param_groups:
        group["lr"] = 0.0 if frozen and group["can_freeze"] else lr * group["lr_scale"]
