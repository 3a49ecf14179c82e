"""The same training with several seeds: a recipe's error is not that of its luckiest run."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mivolo_lite.card import Tta
from mivolo_lite.config import is_on_command_line, read_run_config
from mivolo_lite.errors import UserError
from mivolo_lite.evaluation.compare import image_losses, read_runs
from mivolo_lite.evaluation.headline import between
from mivolo_lite.evaluation.metric_names import METRICS
from mivolo_lite.experiments.spread import Spread, spread
from mivolo_lite.experiments.training_runs import train_and_evaluate
from mivolo_lite.files import write_text

SEEDS_FILE = "seeds.json"
LIMITS = {"mae": (0.0, np.inf), "cs5": (0.0, 1.0), "gender_accuracy": (0.0, 1.0)}


def train_seeds(
    words: Sequence[str], seeds: int, launcher: str = "", workers: int = 2, tta: Tta | None = None
) -> dict[str, Spread]:
    """Train a configuration with seeds 0, 1, ..., evaluate each on its ``data.val``, and write ``seeds.json``.

    Each run is a folder below the configuration's run: ``seed-0`` and so on. A run that is complete is not trained
    again, and one that was interrupted resumes.

    Args:
        words: options of ``train``.
        seeds: how many.
        launcher, workers, tta: see ``train_and_evaluate``.

    Returns:
        By metric (``mae`` in years, ``cs5`` and ``gender_accuracy`` as shares), where the data has its labels.

    Raises:
        UserError: fewer than two seeds, the configuration is invalid, a training failed, or the validation data has
            neither ages nor genders.
    """
    if seeds < 2:
        raise UserError(f"seeds: --seeds {seeds}: the spread needs two trainings or more")
    if is_on_command_line("train.seed", words):
        raise UserError("seeds: --train.seed: the trainings have seeds 0, 1, and so on; leave it out")
    folder = Path(read_run_config(words).run)
    evaluations = [
        train_and_evaluate([*words, "--train.seed", str(seed)], folder / f"seed-{seed}", "best", launcher, workers, tta)
        for seed in range(seeds)
    ]
    runs = read_runs(evaluations)
    losses, identity = [image_losses(run.predictions) for run in runs], runs[0].predictions.identity
    all_spreads = {
        metric: spread([of_run[metric] for of_run in losses], LIMITS[metric], identity) for metric in METRICS
    }
    spreads = {metric: values for metric, values in all_spreads.items() if values is not None}
    if not spreads:
        raise UserError(f"seeds: the validation data has no ages and no genders; {folder} has the trainings")
    contents = {"seeds": list(range(seeds)), "metrics": {name: asdict(values) for name, values in spreads.items()}}
    write_text(folder / SEEDS_FILE, json.dumps(contents, indent=1) + "\n")
    return spreads


def seeds_table(spreads: dict[str, Spread]) -> str:
    """The spreads as text."""
    lines = [f"{'':17}{'n':>8}{'mean':>8}{'std':>8}  {'95 % over trainings':20}{'95 % over both':18}each"]
    for metric, values in spreads.items():
        title, form = METRICS[metric].title, METRICS[metric].form
        trainings, both = between(values.over_trainings, form), between(values.over_both, form) or "too few"
        listed = ", ".join(f"{value:{form}}" for value in values.values)
        figures = f"{values.n:8}{values.mean:>8{form}}{values.deviation:>8{form}}"
        lines.append(f"{title:17}{figures}  {trainings:20}{both:18}{listed}")
    people = max(values.people for values in spreads.values())
    if all(values.people == values.n for values in spreads.values()):
        return "\n".join([*lines, "", "n: images; `over both`: over trainings and images"])
    return "\n".join([*lines, "", f"n: images, of {people} people; `over both`: over trainings and people"])
