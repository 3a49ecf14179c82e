"""Where a run stands, as a checkpoint keeps it."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_type_hints

from mivolo_lite.errors import UserError
from mivolo_lite.loading.order import ORDER_VERSION


@dataclass
class TrainState:
    """Where a run stands. The stream's whole state is ``samples_seen``.

    The learning rate is a function of the step and of ``plateaus``, and every random number of (seed, step, rank) or
    (seed, epoch, sample): neither has a state of its own.

    Attributes:
        digest, seed, window_blocks, block_samples, order_version: name the stream; a checkpoint resumes with no other.
        step: optimizer steps done.
        samples_seen: samples of the stream that those steps used.
        best_mae: lowest ``validation_error`` so far: MAE in years, where ages are known.
        subgroups: logarithmic weights of subgroups, where the run has them.
        val_digest: names the data that ``best_mae`` was measured on; empty before that.
        evaluated: the last step whose weights were evaluated.
        stale: evaluations since the best one.
        plateaus: how often the learning rate fell since no new best came.
        optimizer: whose state is in the checkpoint.
        averaged: how many weights are in its stochastic average.
    """

    digest: str
    seed: int
    window_blocks: int
    block_samples: int
    step: int = 0
    samples_seen: int = 0
    best_mae: float = float("inf")
    order_version: int = ORDER_VERSION
    subgroups: dict[str, float] = field(default_factory=dict)
    val_digest: str = ""
    evaluated: int = 0
    stale: int = 0
    plateaus: int = 0
    optimizer: str = "adamw"
    averaged: int = 0

    def load(self, saved: dict) -> None:
        """Take a checkpoint's state. Raises UserError where it belongs to another stream."""
        for name, meaning in (
            ("digest", "other shards, or in other shares"),
            ("seed", "another seed"),
            ("window_blocks", "another data.window_blocks"),
            ("block_samples", "another data.block_samples"),
            ("order_version", "an older order"),
        ):
            if saved.get(name, getattr(self, name)) != getattr(self, name):
                raise UserError(
                    f"--resume: the checkpoint was trained on {meaning} ({name} {saved[name]}, now "
                    f"{getattr(self, name)}), so the order could not continue; use them again, or start a new run"
                )
        optimizer = saved.get("optimizer", "adamw")
        if optimizer != self.optimizer:
            raise UserError(
                f"--resume: the checkpoint was trained by {optimizer}, not by {self.optimizer}; set "
                "optim.name as it was, or start a new run with --init-from"
            )
        for name, value in saved.items():
            setattr(self, name, value)
        if "evaluated" not in saved:  # written when a checkpoint was saved after its evaluation
            self.evaluated = self.step
        if self.best_mae is None or math.isnan(self.best_mae):
            self.best_mae = math.inf

    def count_evaluation(self, error: float) -> bool:
        """Count an evaluation of the present weights.

        Args:
            error: the ``validation_error``, infinite where it is not measured.

        Returns:
            Whether they are the best: of equals the latest, which have learnt more.
        """
        has_progress = error < self.best_mae or not math.isfinite(error)  # equal is none
        self.stale = 0 if has_progress else self.stale + 1
        is_best = error <= self.best_mae
        if is_best:
            self.best_mae = error
        return is_best

    def forget_best(self) -> None:
        """Forget the lowest error, and that any weights were evaluated."""
        self.best_mae, self.stale, self.evaluated = math.inf, 0, -1

    def to_json(self) -> dict[str, Any]:
        """Plain values that JSON knows: no error yet is null."""
        return asdict(self) | {"best_mae": self.best_mae if math.isfinite(self.best_mae) else None}


_NEEDED = ("digest", "seed", "step", "samples_seen")
"""Fields that every version saved."""
_TYPES = get_type_hints(TrainState) | {"best_mae": float | int | None, "subgroups": dict}


def misfits(saved: Mapping[str, Any]) -> list[str]:
    """The fields of a saved state that are missing, of a wrong type, or none of ``TrainState``."""
    known = [option.name for option in fields(TrainState)]
    return [name for name in known if not _fits(saved, name)] + [name for name in saved if name not in known]


def _fits(state: Mapping[str, Any], name: str) -> bool:
    if name in _NEEDED:
        return type(state.get(name)) is _TYPES[name] and (name not in ("step", "samples_seen") or state[name] >= 0)
    if name == "subgroups" and isinstance(state.get(name), dict):
        return all(isinstance(weight, float) and math.isfinite(weight) for weight in state[name].values())
    return name not in state or isinstance(state[name], _TYPES[name])
