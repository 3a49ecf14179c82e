"""The state of a run in a checkpoint."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_type_hints

from mivolo_lite.errors import UserError
from mivolo_lite.loading.order import ORDER_VERSION


@dataclass
class TrainState:
    """The state of a run. ``samples_seen`` is the whole state of the stream.

    The learning rate is a function of the step and of ``plateaus``, and every random number of (seed, step, rank) or
    (seed, epoch, sample), so neither has a state.

    Attributes:
        digest, seed, window_blocks, block_samples, order_version: identify the stream; a checkpoint resumes only with
            the same.
        step: optimizer steps done.
        samples_seen: samples of the stream that those steps used.
        best_mae: lowest ``validation_error`` so far: MAE in years, if ages are known.
        subgroups: log weights of the subgroups, if the run has them.
        val_digest: of the data for ``best_mae``; empty before the first evaluation.
        evaluated: the last step whose weights were evaluated.
        stale: evaluations since the best one.
        plateaus: number of plateaus so far.
        optimizer: the name of the checkpoint's optimizer.
        averaged: the number of weights in its stochastic average.
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
        """Load a checkpoint's state. Raises UserError if it belongs to another stream."""
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
        if "evaluated" not in saved:  # written by versions that saved a checkpoint after its evaluation
            self.evaluated = self.step
        if self.best_mae is None or math.isnan(self.best_mae):
            self.best_mae = math.inf

    def count_evaluation(self, error: float) -> bool:
        """Count an evaluation of the current weights.

        Args:
            error: the ``validation_error``, infinite if it is not measured.

        Returns:
            Whether they are the best. Of equal ones it is the latest, which has learnt more.
        """
        has_progress = error < self.best_mae or not math.isfinite(error)  # an equal error is no progress
        self.stale = 0 if has_progress else self.stale + 1
        is_best = error <= self.best_mae
        if is_best:
            self.best_mae = error
        return is_best

    def forget_best(self) -> None:
        """Forget the lowest error, and the last evaluation."""
        self.best_mae, self.stale, self.evaluated = math.inf, 0, -1

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON: without an error yet, it is null."""
        return asdict(self) | {"best_mae": self.best_mae if math.isfinite(self.best_mae) else None}


_NEEDED = ("digest", "seed", "step", "samples_seen")
"""Fields that every version saved."""
_TYPES = get_type_hints(TrainState) | {"best_mae": float | int | None, "subgroups": dict}


def misfits(saved: Mapping[str, Any]) -> list[str]:
    """The fields of a saved state that are missing, of a wrong type, or unknown."""
    known = [option.name for option in fields(TrainState)]
    return [name for name in known if not _fits(saved, name)] + [name for name in saved if name not in known]


def _fits(state: Mapping[str, Any], name: str) -> bool:
    if name in _NEEDED:
        return type(state.get(name)) is _TYPES[name] and (name not in ("step", "samples_seen") or state[name] >= 0)
    if name == "subgroups" and isinstance(state.get(name), dict):
        return all(isinstance(weight, float) and math.isfinite(weight) for weight in state[name].values())
    return name not in state or isinstance(state[name], _TYPES[name])
