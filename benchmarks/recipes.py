"""Ablation of a recipe: with one part removed or added at a time, several seeds each, in one table.

    UTKFACE_DIR=... [WEIGHTS_DIR=...] python benchmarks/recipes.py utkface [--only mixup "no EMA"] [--jobs 2]
    [WEIGHTS_DIR=...] python benchmarks/recipes.py finetune --data FOLDER [--options --of.every training]

Trains configs/utkface.yaml (UTKFace is packed first, 90/10, seed 0) or configs/finetune.yaml (on FOLDER/train and
FOLDER/val, packed as its head says) and its variants by the ordinary command, and evaluates them with mirror images.
Finished runs are not repeated, interrupted ones resume, and the table has the finished ones. Differences are between
means over trainings, evaluated on the same images, with Welch's 95 % interval over trainings.
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
from commands import REPOSITORY, metrics_file, pack_utkface, train_all, train_and_evaluate, training_folder
from scipy.stats import ttest_ind
from timing import processor, write_result

CONFIGS = REPOSITORY / "configs"
RESULTS = REPOSITORY / "benchmarks" / "results"
RECIPE = "the recipe"
WORSENED = 260
"""Validation faces of UTKFace that are also evaluated with corruptions: a third of them."""


UTKFACE = {
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

IMAGENET = "from ImageNet"
FINETUNE = {
    IMAGENET: (
        *("--init_from", "", "--model.name", "single", "--model.backbone", "efficientnet_lite0"),
        *("--method.name", "dldl", "--data.image_size", "128", "--optim.lr", "1e-3", "--optim.layer_decay", "1"),
    ),
    "no layer decay": ("--optim.layer_decay", "1"),
    "no RandAugment and erasing": ("--data.augment.randaugment_ops", "0", "--data.augment.erase", "0"),
    "stronger RandAugment and crops": (
        *("--data.augment.randaugment_ops", "2", "--data.augment.randaugment_magnitude", "9"),
        *("--data.augment.crop_scale", "0.7"),
    ),
    "mixup": ("--data.mixup.mixup_alpha", "0.2"),
    "backbone frozen": ("--train.freeze", "[backbone]"),
    "no EMA": ("--optim.ema_decay", "0"),
    "learning rate 6e-4": ("--optim.lr", "6e-4"),
    "10 epochs": ("--optim.epochs", "10"),
}

RECIPES = {"utkface": {RECIPE: (), **UTKFACE}, "finetune": {RECIPE: (), **FINETUNE}}
"""By configuration, the parts and the options that remove or add each."""

TABLES = {"utkface": "recipes.md", "finetune": "recipes_finetune.md"}


class Column(NamedTuple):
    """A metric of an evaluation: its title, its path in metrics.json, and the format of its values."""

    title: str
    place: tuple[str, ...]
    form: str


COLUMNS = (
    Column("MAE", ("mae",), ".2f"),
    Column("gender accuracy", ("gender_accuracy",), ".1%"),
    Column("MAE over ten-year bins", ("macro_mae", "value"), ".2f"),
    Column("degradation", ("robustness", "mean_relative_degradation"), ".0%"),
)


def train(arguments: argparse.Namespace, part: str, seed: int) -> None:
    """One training and its evaluation, by the ordinary commands."""
    is_utkface = arguments.recipe == "utkface"
    evaluate = ["--tta", "flip", "--report", "no"]
    if is_utkface:
        evaluate += ["--robustness", "yes", "--robustness_samples", WORSENED]
    train_and_evaluate(
        CONFIGS / f"{arguments.recipe}.yaml",
        training_folder(arguments.work, part, seed),
        arguments.data / "train",
        arguments.data / "val",
        (*arguments.options, *RECIPES[arguments.recipe][part], "--train.seed", seed),
        evaluate,
        imagenet=is_utkface or part == IMAGENET,
    )


@cache
def metrics(part: str, work: Path, seeds: int) -> list[dict]:
    """The metrics.json of each finished training of a part."""
    paths = [metrics_file(training_folder(work, part, seed)) for seed in range(seeds)]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def values(part: str, column: Column, arguments: argparse.Namespace) -> list[float]:
    """The metric of each finished training of a part that measured it."""
    found = metrics(part, arguments.work, arguments.seeds)
    return [reduce(getitem, column.place, one) for one in found if column.place[0] in one]


def against(ours: Sequence[float], recipe: Sequence[float], form: str) -> str:
    """The difference from the recipe's mean, with half of Welch's 95 % interval if both have two trainings."""
    change = float(np.mean(ours) - np.mean(recipe))
    if min(len(ours), len(recipe)) < 2:
        return f"{change:+{form}}"
    low, high = ttest_ind(ours, recipe, equal_var=False).confidence_interval()
    return f"{change:+{form}} ± {(high - low) / 2:{form}}"


def row(part: str, columns: Sequence[Column], arguments: argparse.Namespace) -> str:
    """A row of the table, for a part with a finished training."""
    cells = [part, str(len(metrics(part, arguments.work, arguments.seeds)))]
    for column in columns:
        ours, recipe = (values(name, column, arguments) for name in (part, RECIPE))
        cells.append(f"{np.mean(ours):{column.form}}")
        cells.append("" if part == RECIPE else against(ours, recipe, column.form))
    return f"| {' | '.join(cells)} |"


def write_table(arguments: argparse.Namespace) -> None:
    name = arguments.recipe
    epochs = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["optim"]["epochs"]
    parts = [part for part in RECIPES[name] if metrics(part, arguments.work, arguments.seeds)]
    faces = metrics(parts[0], arguments.work, arguments.seeds)[0]["n"]
    columns = [column for column in COLUMNS if values(parts[0], column, arguments)]
    card = f"one {torch.cuda.get_device_name()}" if torch.cuda.is_available() else f"{os.cpu_count()} CPUs"
    titles = " | ".join(f"{column.title} | against the recipe" for column in columns)
    worse = (
        f" `degradation`: the increase of the MAE of {WORSENED} of them, on average over ten corruptions at five "
        "strengths."
    )
    options = " ".join([name, *["--options"] * bool(arguments.options), *arguments.options])
    head = (
        f"# Ablation of configs/{name}.yaml\n\n"
        f"`python benchmarks/recipes.py {options}` on {card} of {processor()}. "
        f"{epochs} epochs, with one part changed at a time. {faces} validation faces, with mirror images. "
        f"Means over seeds; differences with Welch's 95 % interval over trainings.{worse * (name == 'utkface')}\n\n"
        f"| | trainings | {titles} |\n| --- |{' ---: |' * (1 + 2 * len(columns))}\n"
    )
    write_result(RESULTS / TABLES[name], head + "\n".join(row(part, columns, arguments) for part in parts) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("--only", nargs="+", metavar="PART", help="by default all")
    parser.add_argument("--data", type=Path, help="a folder with train and val; UTKFace is packed by default")
    parser.add_argument("--work", type=Path, help="folder of the trainings, runs/recipes_NAME by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time; set OMP_NUM_THREADS accordingly")
    parser.add_argument("--table", action="store_true", help="only write the table of the finished trainings")
    parser.add_argument(
        "--options", nargs=argparse.REMAINDER, default=[], help="options of every training; must come last"
    )
    arguments = parser.parse_args()
    parts = arguments.only or list(RECIPES[arguments.recipe])
    if unknown := set(parts) - RECIPES[arguments.recipe].keys():
        parser.error(f"--only {unknown}: {arguments.recipe} has {', '.join(RECIPES[arguments.recipe])}")
    arguments.work = arguments.work or REPOSITORY / "runs" / f"recipes_{arguments.recipe}"
    if arguments.data is None:
        if arguments.recipe != "utkface":
            parser.error("finetune: give the folder of your packed photos as --data")
        arguments.data = arguments.work / "utkface"
        pack_utkface(arguments.data)
    if not arguments.table:
        train_all(parts, arguments.seeds, arguments.jobs, partial(train, arguments))
    write_table(arguments)


if __name__ == "__main__":
    main()
