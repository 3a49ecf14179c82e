"""The learning rate as a function of the samples seen and of the plateaus, independent of the world size."""

import math
from bisect import bisect_right
from collections.abc import Callable

from torch.optim import Optimizer

from mivolo_lite.training.optim import OptimConfig, Schedule

_FALLING: dict[Schedule, Callable[[float, OptimConfig], float]] = {
    # Loshchilov and Hutter, "SGDR", ICLR 2017
    "cosine": lambda share, config: (1 + math.cos(math.pi * share)) / 2,
    "linear": lambda share, config: 1 - share,
    "poly": lambda share, config: (1 - share) ** config.power,
    # Hsueh et al., "Stochastic gradient descent with hyperbolic-tangent decay", WACV 2019, with timm's bounds
    "tanh": lambda share, config: (1 - math.tanh(-7 * (1 - share) + 3 * share)) / 2,
}
"""The remaining share of the way from ``lr`` down to ``min_lr`` after a share of the steps, by schedule."""

_DECAYING: dict[Schedule, Callable[[float, int, OptimConfig], float]] = {
    "step": lambda epoch, plateaus, config: config.decay_rate ** (epoch // config.decay_epochs),
    "multistep": lambda epoch, plateaus, config: (
        config.decay_rate ** bisect_right(sorted(config.decay_milestones), epoch)
    ),
    "plateau": lambda epoch, plateaus, config: config.decay_rate**plateaus,
    "constant": lambda epoch, plateaus, config: 1.0,
}
"""The factor of ``lr`` after a number of passes over the data (the warm-up included) and of plateaus, by schedule."""


def meets_plateau(stale: int, config: OptimConfig) -> bool:
    """Whether the latest evaluation ends another plateau, as defined by ``ReduceLROnPlateau``.

    Args:
        stale: evaluations since the best one.
        config: options.
    """
    return config.schedule == "plateau" and stale > 0 and stale % (config.plateau_patience + 1) == 0


def learning_rate(
    step: float, total_steps: float, steps_per_epoch: float, config: OptimConfig, plateaus: int = 0
) -> float:
    """Linear warm-up, then ``optim.schedule``, not below ``min_lr``; ``swa_lr`` from ``swa_start`` on.

    Args:
        step: the samples seen, in steps of the current global batch.
        total_steps, steps_per_epoch: of the run.
        config: options.
        plateaus: number of plateaus so far.
    """
    if config.swa_lr is not None and config.swa_start is not None and step >= config.swa_start * steps_per_epoch:
        return config.swa_lr
    warmup = config.warmup_epochs * steps_per_epoch
    if step < warmup:
        return config.lr * (step + 1) / math.ceil(warmup)
    lowest = min(config.min_lr, config.lr)
    if config.schedule in _DECAYING:
        factor = _DECAYING[config.schedule](step / steps_per_epoch, plateaus, config)
        return max(config.lr * factor, lowest)
    share = min(1.0, (step - warmup) / max(1.0, total_steps - warmup))
    return lowest + (config.lr - lowest) * _FALLING[config.schedule](share, config)


def set_learning_rate(optimizer: Optimizer, lr: float, frozen: bool = False) -> None:
    """Set the learning rate of every group: its share of ``lr``, and 0 for frozen parameters."""
    for group in optimizer.param_groups:
        group["lr"] = 0.0 if frozen and group["can_freeze"] else lr * group["lr_scale"]
