"""What balancing, group DRO and robust augmentation change: for the worst treated, for worse pictures, and in all.

    UTKFACE_DIR=... [WEIGHTS_DIR=...] python benchmarks/robustness.py [--only plain balanced] [--seeds 0 1]

Packs UTKFace (80/20, seed 0), trains every configs/robust/*.yaml through the ordinary command with each seed, and
evaluates it, on worse pictures as well. A run that was interrupted goes on, a finished one is not repeated, and the
table holds what is finished. Errors are averaged over the seeds picture by picture, and differences to ``plain`` with
the same seeds are paired by picture.
"""

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist

import numpy as np
import yaml
from commands import REPOSITORY, metrics_file, pack_utkface, train_and_evaluate

from mivolo_lite.evaluation.evaluate import PREDICTIONS_FILE
from mivolo_lite.evaluation.groups import LIMIT
from mivolo_lite.evaluation.intervals import bootstrap, cell_sums, counted, means
from mivolo_lite.evaluation.metrics import age_errors, ten_year_bin
from mivolo_lite.evaluation.predictions import Predictions, read_csv

CONFIGS = REPOSITORY / "configs" / "robust"
TABLE = REPOSITORY / "benchmarks" / "results" / "robustness.md"
NAMES = (
    *("plain", "balanced", "dro", "dro_mild"),
    *("augmented", "augmented_strong", "balanced_augmented", "dro_augmented"),
)
ALLOWED = 0.1
"""Years by which a switch may raise the MAE of all."""

Runs = dict[int, Path]
"""The evaluations of one configuration, by seed."""

Change = tuple[float, float, float]
"""A difference to ``plain`` and the ends of its interval."""

TARGETS = ("worst group", "worst age bin", "degradation")
"""What the switches are there to lower."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1], metavar="SEED", help="of the runs to train")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs" / "robust", help="shards and runs")
    parser.add_argument("--samples", type=int, default=500, help="pictures that are made worse, in 50 ways each")
    arguments = parser.parse_args()
    data = arguments.work / "utkface"
    pack_utkface(data, "--split", "train=0.8,val=0.2")
    worse = "--robustness", "yes", "--robustness_samples", arguments.samples
    for seed, name in itertools.product(arguments.seeds, arguments.only):
        run = arguments.work / name / f"seed{seed}"
        train_and_evaluate(CONFIGS / f"{name}.yaml", run, data, train=("--train.seed", seed), evaluate=worse)
    finished = {name: evaluations(arguments.work / name) for name in NAMES}
    write_table({name: runs for name, runs in finished.items() if runs.keys() & finished["plain"].keys()})


def evaluations(folder: Path) -> Runs:
    """Those of the finished runs of a configuration."""
    runs = {int(run.name.removeprefix("seed")): run for run in sorted(folder.glob("seed*"))}
    return {seed: run / "evaluation" for seed, run in runs.items() if metrics_file(run).exists()}


def measured(runs: Runs, plain: Runs, level: float) -> dict[str, tuple[str, Change]]:
    """Every column of the table for one configuration: its value with a 95 % interval, and its change.

    Args:
        runs: its evaluations.
        plain: those without switches, of the same seeds.
        level: of the changes' intervals.
    """
    own, other = ([read_csv(path / PREDICTIONS_FILE)[None] for path in each.values()] for each in (runs, plain))
    first = own[0]
    assert all(each.key == first.key for each in own + other), "all are of the same pictures"
    errors = np.stack([seed_average(each) for each in (other, own)])
    groups, bins = cells(first.group), cells(ten_year_bin(first.age_lo, first.age_hi))
    columns = {
        "MAE": ((None, np.zeros(len(first.key), dtype=np.int64)), np.mean),
        "worst group": (groups, np.max),
        "worst age bin": (bins, np.max),
        "macro MAE": (bins, np.mean),
    }
    rows = {title: by_cells(errors, *where, reduce, level) for title, (where, reduce) in columns.items()}
    return rows | {"degradation": degradation(runs, plain, level)}


def seed_average(seeds: list[Predictions]) -> np.ndarray:
    """(N,) absolute errors, the mean over the seeds."""
    return np.mean([np.abs(age_errors(each.age, each.age_lo, each.age_hi)) for each in seeds], axis=0)


def cells(names: list[str | None]) -> tuple[list[str], np.ndarray]:
    """The names of at least ``LIMIT`` pictures, and (N,) the place of each picture's among them, or -1."""
    found, count = np.unique([name or "" for name in names], return_counts=True)
    large = [name for name in found[count >= LIMIT].tolist() if name]
    return large, np.array([large.index(name) if name in large else -1 for name in names])


def by_cells(
    errors: np.ndarray, names: list[str] | None, cell: np.ndarray, reduce: Callable, level: float
) -> tuple[str, Change]:
    """The mean or the largest of the cells' MAEs.

    Args:
        errors: (2, N) absolute errors, of the plain run and of the other one.
        names: of the cells, None where there is one.
        cell: (N,) of each picture, -1 where it is in none.
        reduce: of the MAEs over the cells.
        level: of the change's interval.
    """
    values, cell = counted(*errors[:, cell >= 0]), cell[cell >= 0]

    def statistic(sums: np.ndarray) -> np.ndarray:
        """(B, 2): the other run's, and how much more that is than the plain run's."""
        plain, own = np.moveaxis(reduce(means(sums), axis=1), -1, 0)
        return np.stack([own, own - plain], axis=-1)

    found = statistic(cell_sums(values, cell))[0]
    interval = bootstrap(values, statistic, cell)[:, 0]
    change = bootstrap(values, statistic, cell, level=level)[:, 1]
    worst = ""
    if reduce is np.max:
        worst = f" {names[means(cell_sums(values, cell))[0, :, 1].argmax()]}"
    text = f"{found[0]:.2f}{worst} [{interval[0]:.2f}, {interval[1]:.2f}]"
    return text, (found[1], *change)


def degradation(runs: Runs, plain: Runs, level: float) -> tuple[str, Change]:
    """The mean relative degradation, the mean over the seeds.

    Neither seeds nor configurations are paired by picture: the ends of the seeds' intervals are averaged, and the
    variances of both configurations are added, which is too wide.
    """
    (value, *ends), (before, *others) = (seed_degradation(each) for each in (runs, plain))
    half = float(np.hypot(np.ptp(ends), np.ptp(others))) / 2 * normal_quantile(level) / normal_quantile(0.95)
    change = value - before
    return f"{value:+.1%} [{ends[0]:+.1%}, {ends[1]:+.1%}]", (change, change - half, change + half)


def seed_degradation(runs: Runs) -> list[float]:
    """The mean relative degradation and the ends of its interval, each the mean over the seeds."""
    found = [json.loads((path / "metrics.json").read_text())["robustness"] for path in runs.values()]
    rows = [[each["mean_relative_degradation"], *each["mean_relative_degradation_interval"]] for each in found]
    return np.mean(rows, axis=0).tolist()


def normal_quantile(level: float) -> float:
    """Standard deviations to either side of the mean that hold so much of a normal distribution."""
    return NormalDist().inv_cdf((1 + level) / 2)


def write_table(finished: dict[str, Runs]) -> None:
    """One line a configuration, and a sentence on each that has switches."""
    level = 1 - 0.05 / max(1, len(finished) - 1)
    plain, rows, seeds = finished["plain"], {}, {}
    for name, runs in finished.items():
        seeds[name] = sorted(runs.keys() & plain.keys())
        own, other = ({seed: each[seed] for seed in seeds[name]} for each in (runs, plain))
        rows[name] = measured(own, other, level)
    titles = list(rows["plain"])
    lines = [f"| {' | '.join(['run', 'seeds', *titles])} |", "| --- " * (2 + len(titles)) + "|"]
    for name, row in rows.items():
        texts = [
            text if name == "plain" else f"{text}<br>{_said(title, row[title][1])}" for title, (text, _) in row.items()
        ]
        lines.append(f"| {' | '.join([name, ', '.join(map(str, seeds[name])), *texts])} |")
    sentences = [f"* {_verdict(name, row)}" for name, row in rows.items() if name != "plain"]
    TABLE.write_text(_head(finished, level) + "\n".join([*lines, "", *sentences]) + "\n")
    print(TABLE.read_text())


def _head(finished: dict[str, Runs], level: float) -> str:
    base = yaml.safe_load((CONFIGS / "base.yaml").read_text())
    one = next(iter(finished["plain"].values()))
    metrics = json.loads((one / "metrics.json").read_text())
    return (
        "# What the switches against unequal errors and poor pictures change\n\n"
        f"UTKFace part 1, {metrics['n']} validation faces of a random 80/20 split (seed 0; a person may lie in both), "
        f"{base['model']['backbone']} from ImageNet at {base['data']['image_size']} px, {base['optim']['epochs']} "
        "epochs, regression by L1, evaluated once. Written by `python benchmarks/robustness.py`; "
        f"{len(finished)} of {len(NAMES)} configurations of configs/robust have been run.\n\n"
        "MAE in years with its 95 % bootstrap interval: of all, of the worst group and the worst age bin of ten years "
        f"(of those with {LIMIT} pictures or more), and the mean over those bins; and the mean relative degradation "
        f"under 10 corruptions at 5 strengths ({metrics['robustness']['samples']} of the pictures). A picture's error "
        "is its mean over the seeds. Below, the difference to plain with the same seeds, paired by picture but for the "
        f"degradation's, in intervals of {level:.2%} (95 % for all rows together). They hold for other pictures, not "
        "for other seeds. `augmented` trains on the same families of changes as the corruptions are of, so its "
        "degradation says nothing about others.\n\n"
    )


def _said(title: str, change: Change) -> str:
    form = "+.1%" if title == "degradation" else "+.2f"
    value, lower, upper = change
    return f"{value:{form}} [{lower:{form}}, {upper:{form}}] {_judged(change)}"


def _judged(change: Change) -> str:
    value, lower, upper = change
    return "noise" if lower <= 0 <= upper else "better" if value < 0 else "worse"


def _verdict(name: str, row: dict[str, tuple[str, Change]]) -> str:
    """Which targets a run lowers by more than noise, and whether the MAE of all stays within what is allowed."""
    by_word: dict[str, list[str]] = {}
    for title in TARGETS:
        by_word.setdefault(_judged(row[title][1]), []).append(title)
    words = {"better": "lowers the", "worse": "raises the", "noise": "changes by no more than noise the"}
    parts = [f"{words[word]} {' and the '.join(titles)}" for word, titles in by_word.items()]
    rise = row["MAE"][1][0]
    allowed = "within" if rise <= ALLOWED else "more than"
    helps = "" if "better" in by_word else " It does not help here."
    return (
        f"`{name}` {'; '.join(parts)}. The MAE of all changes by {rise:+.2f}, {allowed} the {ALLOWED} allowed.{helps}"
    )


if __name__ == "__main__":
    main()
