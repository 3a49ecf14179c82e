"""What each part of a recipe gains: the recipe, without it, or with one more, several seeds each, in one table.

    UTKFACE_DIR=... [WEIGHTS_DIR=...] python benchmarks/recipes.py [--only mixup EMA] [--jobs 2] [-- options of train]

Packs UTKFace (90/10, seed 0) and trains configs/utkface.yaml by the ordinary command, as it is and then with one part
after another taken away or added; each training is evaluated on the images and their mirror images, and on worse
images. What is finished is not repeated, what was interrupted resumes, and the table holds what is finished.
Differences are between means over trainings of the same images, with Welch's 95 % interval over trainings.
"""

import argparse
import json
import os
from collections.abc import Sequence
from functools import cache, partial, reduce
from operator import getitem
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import yaml
from commands import REPOSITORY, metrics_file, pack_utkface, train_all, train_and_evaluate
from scipy.stats import ttest_ind
from timing import processor

CONFIG = REPOSITORY / "configs" / "utkface.yaml"
TABLE = REPOSITORY / "benchmarks" / "results" / "recipes.md"
RECIPE = "the recipe"
PARTS: dict[str, tuple[str, ...]] = {
    RECIPE: (),
    "regression in place of a label distribution": ("--method.name", "regression"),
    "128 px": ("--data.image_size", "128"),
    "192 px": ("--data.image_size", "192"),
    "no RandAugment": ("--data.augment.randaugment_ops", "0"),
    "no random erasing": ("--data.augment.erase", "0"),
    "no random crops": ("--data.augment.crop_scale", "1"),
    "no degradations": ("--data.augment.photometric", "0", "--data.augment.degrade", "0"),
    "mixup": ("--data.mixup.mixup_alpha", "0.2"),
    "C-Mixup": ("--data.mixup.mixup_alpha", "0.2", "--data.mixup.bandwidth", "5"),
    "mixup and CutMix": ("--data.mixup.mixup_alpha", "0.2", "--data.mixup.cutmix_alpha", "1"),
    "24 epochs": ("--optim.epochs", "24"),
    "no dropout": ("--model.drop_rate", "0"),
    "no stochastic depth": ("--model.drop_path_rate", "0"),
    "no EMA": ("--optim.ema_decay", "0"),
    "layer decay 0.85": ("--optim.layer_decay", "0.85"),
    "gender weight 1": ("--optim.gender_weight", "1"),
    "gender weight 4": ("--optim.gender_weight", "4"),
    "random weights": ("--model.weights", "null", "--model.pretrained", "false"),
}
"""Parts, and the options that take each away or add it."""

WORSENED = 260
"""Validation faces that are also estimated from worse images: a third of them."""


class Column(NamedTuple):
    """A metric of an evaluation: its title, its place in metrics.json, and how values and differences read."""

    title: str
    place: tuple[str, ...]
    form: str


COLUMNS = (
    Column("MAE", ("mae",), ".2f"),
    Column("gender right", ("gender_accuracy",), ".1%"),
    Column("MAE over ten-year bins", ("macro_mae", "value"), ".2f"),
    Column("degradation", ("robustness", "mean_relative_degradation"), ".0%"),
)


def folder(part: str, seed: int, work: Path) -> Path:
    return work / part.replace(" ", "_") / f"seed-{seed}"


def train(arguments: argparse.Namespace, part: str, seed: int) -> None:
    """One training and its evaluation, by the ordinary commands."""
    data, options = arguments.work / "utkface", (*arguments.options, *PARTS[part], "--train.seed", seed)
    evaluate = ("--tta", "flip", "--report", "no", "--robustness", "yes", "--robustness_samples", WORSENED)
    train_and_evaluate(CONFIG, folder(part, seed, arguments.work), data / "train", data / "val", options, evaluate)


@cache
def metrics(part: str, work: Path, seeds: int) -> list[dict]:
    """What metrics.json says of each finished training of a part."""
    paths = [metrics_file(folder(part, seed, work)) for seed in range(seeds)]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def values(part: str, column: Column, arguments: argparse.Namespace) -> list[float]:
    """The metric of each finished training of a part."""
    return [reduce(getitem, column.place, found) for found in metrics(part, arguments.work, arguments.seeds)]


def against(ours: Sequence[float], recipe: Sequence[float], form: str) -> str:
    """How much larger our mean is, with half of Welch's 95 % interval where there are trainings enough."""
    change = float(np.mean(ours) - np.mean(recipe))
    if min(len(ours), len(recipe)) < 2:
        return f"{change:+{form}}"
    low, high = ttest_ind(ours, recipe, equal_var=False).confidence_interval()
    return f"{change:+{form}} ± {(high - low) / 2:{form}}"


def row(part: str, arguments: argparse.Namespace) -> str | None:
    """A line of the table; None where no training is finished."""
    cells = [part]
    for column in COLUMNS:
        ours, recipe = (values(name, column, arguments) for name in (part, RECIPE))
        if not ours:
            return None
        cells.append(f"{np.mean(ours):{column.form}}")
        cells.append("" if part == RECIPE else against(ours, recipe, column.form))
    return f"| {' | '.join([*cells[:1], str(len(ours)), *cells[1:]])} |"


def write_table(arguments: argparse.Namespace) -> None:
    config = yaml.safe_load(CONFIG.read_text())
    faces = next(found["n"] for part in PARTS for found in metrics(part, arguments.work, arguments.seeds))
    card = f"one {torch.cuda.get_device_name()}" if torch.cuda.is_available() else f"{os.cpu_count()} CPUs"
    titles = " | ".join(f"{column.title} | against the recipe" for column in COLUMNS)
    head = (
        "# What each part of the UTKFace recipe gains\n\n"
        f"`python benchmarks/recipes.py{' -- ' * bool(arguments.options)}{' '.join(arguments.options)}` on {card} of "
        f"{processor()}: configs/utkface.yaml ({config['optim']['epochs']} epochs) with one part changed at a time; "
        f"{faces} validation faces of a random 90/10 split (seed 0), estimated from the image and its mirror image. "
        "Means over trainings with other seeds, and differences with Welch's 95 % interval over trainings. "
        "`degradation`: by how much the MAE of "
        f"{WORSENED} of them grows, on average over ten corruptions at five strengths.\n\n"
        f"| | trainings | {titles} |\n| --- |{' ---: |' * (1 + 2 * len(COLUMNS))}\n"
    )
    rows = [line for part in PARTS if (line := row(part, arguments))]
    TABLE.write_text(head + "\n".join(rows) + "\n")
    print(TABLE.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs" / "recipes", help="shards and runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time; set OMP_NUM_THREADS accordingly")
    parser.add_argument("options", nargs="*", help="options of every training, after --")
    parser.add_argument("--table", action="store_true", help="only write the table of what is finished")
    arguments = parser.parse_args()
    if not arguments.table:
        pack_utkface(arguments.work / "utkface")
        train_all(arguments.only, arguments.seeds, arguments.jobs, partial(train, arguments))
    write_table(arguments)


if __name__ == "__main__":
    main()
