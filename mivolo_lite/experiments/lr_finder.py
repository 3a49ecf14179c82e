"""The learning-rate range test (Smith, 2017): a short training whose rate rises, and where its loss falls."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from mivolo_lite.config import read_run_config
from mivolo_lite.errors import UserError
from mivolo_lite.experiments.smoothing import smoothed
from mivolo_lite.files import write_text
from mivolo_lite.reporting.plots import BLUE, ORANGE, Plot, legend
from mivolo_lite.training.loop import Trainer
from mivolo_lite.training.step import Diverged

LR_FILE = "lr.json"
_EPOCHS = "1000"
"""Enough for any number of steps: the test ends by itself."""
_WINDOW = 0.1
"""Share of the steps that are left out at the start, where the mean is over few batches, and to each side of a slope:
the difference of two neighbours is noise (on four seeds of one training it named rates from 1e-6 to 1)."""
_EXPLODED = 4.0
"""The test ends where the smoothed loss is so many times the lowest."""


@dataclass(frozen=True)
class LrCurve:
    """Learning rates that were tried, and the smoothed training loss at each.

    Attributes:
        rates, losses: one number a step.
    """

    rates: list[float]
    losses: list[float]

    @property
    def steepest(self) -> float:
        """Where the loss falls fastest over the logarithm of the rate: the highest rate to train with.

        By the line of least squares through the losses around each rate, up to that of the lowest loss. The line itself
        reaches beyond: one through few steps before the lowest loss would be steep by noise.

        Raises:
            UserError: the loss falls nowhere.
        """
        half = max(2, round(_WINDOW * len(self.rates)))
        first = min(half, len(self.rates) // 3)
        end = first + int(np.argmin(self.losses[first:])) + 1
        slopes = [self._slope(max(first, at - half), at + half + 1) for at in range(first, end)]
        if min(slopes) >= 0:
            raise UserError("find-lr: the loss falls at no rate; give a lower --low, or more --steps")
        return self.rates[first + int(np.argmin(slopes))]

    def _slope(self, begin: int, end: int) -> float:
        return float(np.polyfit(np.log(self.rates[begin:end]), self.losses[begin:end], 1)[0])


def find_lr(words: Sequence[str], steps: int = 100, low: float = 1e-6, high: float = 1.0) -> LrCurve:
    """Train a configuration for a few steps, at learning rates from ``low`` to ``high``, and write the curve.

    It writes ``find-lr/lr.json`` and ``find-lr/lr.png`` into the configuration's run folder, and no checkpoint.

    Args:
        words: options of ``train``.
        steps: most steps; the test ends earlier where the loss explodes.
        low, high: the first and the last learning rate, equally spaced by their logarithms between.

    Raises:
        UserError: the configuration is invalid, or the loss explodes at once, or falls nowhere.
    """
    if not low < high:
        raise UserError(f"find-lr: --low {low:g} --high {high:g}: give a lower rate and a higher one")
    out = curve_folder(words)
    changes = ["--run", str(out / "run"), "--optim.epochs", _EPOCHS, "--train.trackers", "[]"]
    trainer = Trainer(read_run_config([*words, *changes]))
    curve = _measured(trainer, np.geomspace(low, high, steps).tolist())
    trainer.close()
    if len(curve.rates) < 3:
        raise UserError(f"find-lr: --low {low:g}: the loss explodes at once; give a lower rate")
    if trainer.accelerator.is_main_process:
        write_text(out / LR_FILE, json.dumps({"rates": curve.rates, "losses": curve.losses}) + "\n")
        Plot("lr", "Smoothed training loss by learning rate", partial(_draw, curve)).save(out)
    return curve


def curve_folder(words: Sequence[str]) -> Path:
    """Where ``find_lr`` writes the curve."""
    return Path(read_run_config(words).run) / "find-lr"


def _measured(trainer: Trainer, rates: Sequence[float]) -> LrCurve:
    losses: list[float] = []
    try:
        for loss in smoothed(trainer.learn_at(rates)):
            losses.append(loss)
            if loss > _EXPLODED * min(losses):
                break
    except Diverged:
        pass
    return LrCurve(list(rates[: len(losses)]), losses)


def _draw(curve: LrCurve, ax: Axes) -> None:
    ax.plot(curve.rates, curve.losses, color=BLUE)
    ax.axvline(curve.steepest, color=ORANGE, label=f"steepest, {curve.steepest:.1e}")
    ax.set_xscale("log")
    ax.set_xlabel("learning rate")
    ax.set_ylabel("training loss, smoothed")
    legend(ax)
