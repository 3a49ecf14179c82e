"""The effect of balancing, group DRO and augmentation: on the worst subgroups, on corrupted images, and overall.

    UTKFACE_DIR=... [WEIGHTS_DIR=...] python benchmarks/robustness.py [--only plain balanced] [--seeds 0] [--jobs 8]

Three-fold cross-validation on UTKFace: every configs/robust/*.yaml is trained by the ordinary command on two folds and
evaluated on the third, also on corrupted images. So every image of the rare subgroups is used for evaluation. An
interrupted run resumes, a finished one is not repeated, and the table has the finished ones. Differences to ``plain``
are over the same folds and seeds, paired by image except for the degradation.
"""

import argparse
import itertools
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from statistics import NormalDist

import numpy as np
import yaml
from commands import REPOSITORY, metrics_file, pack_utkface, train_and_evaluate
from timing import write_result

from mivolo_lite.evaluation.intervals import LIMIT, cell_sums, counted, means, percentiles, replicates
from mivolo_lite.evaluation.metrics import METRICS_FILE, age_errors, ten_year_bin
from mivolo_lite.evaluation.predictions import PREDICTIONS_FILE, Predictions, read_csv
from mivolo_lite.shards.index import ShardIndex

CONFIGS = REPOSITORY / "configs" / "robust"
TABLE = REPOSITORY / "benchmarks" / "results" / "robustness.md"
NAMES = (
    "plain",
    "balanced",
    "balanced_mild",
    "dro",
    "dro_mild",
    "augmented",
    "augmented_mild",
    "balanced_augmented",
    "dro_augmented",
    "dro_augmented_mild",
)
FOLDS, SEEDS = range(3), (0, 1)
ALLOWED = 0.1
"""Years by which a mitigation may raise the MAE."""

Runs = dict[tuple[int, int], Path]
"""The evaluations of one configuration, by the held-out part of the images and the seed."""

Change = tuple[float, float, float]
"""A difference from ``plain`` and the ends of its interval."""

TIMES = 10_000
"""Bootstrap replicates of the changes' intervals, whose level is high."""

TARGETS = ("worst group", "worst age bin", "macro MAE", "degradation")
"""What the mitigations should lower."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    parser.add_argument("--folds", nargs="+", type=int, choices=FOLDS, default=FOLDS, help="parts to evaluate on")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs" / "robust", help="shards and runs")
    parser.add_argument(
        "--samples", type=int, default=200, help="images of each part that are evaluated with corruptions"
    )
    arguments = parser.parse_args()
    parts = [arguments.work / "utkface" / f"fold{fold}" for fold in FOLDS]
    pack_utkface(parts[0].parent, "--split", ",".join(f"{part.name}={1 / len(FOLDS)}" for part in parts))
    worse = "--report", "no", "--robustness", "yes", "--robustness_samples", arguments.samples

    def run(seed: int, fold: int, name: str) -> None:
        others = together([part for part in parts if part != parts[fold]])
        folder = arguments.work / name / f"fold{fold}_seed{seed}"
        train_and_evaluate(CONFIGS / f"{name}.yaml", folder, others, parts[fold], ["--train.seed", seed], worse)

    # All configurations before the next part, so that the finished ones can be compared.
    wanted = itertools.product(arguments.seeds, arguments.folds, arguments.only)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        jobs = [pool.submit(run, *each) for each in wanted]
    for job in jobs:
        job.result()
    finished = {name: evaluations(arguments.work / name) for name in NAMES}
    if not finished["plain"]:
        raise SystemExit("benchmarks/robustness.py: no table, since `plain` was not trained; add it to --only")
    write_table({name: runs for name, runs in finished.items() if runs.keys() & finished["plain"].keys()})


def together(parts: list[Path]) -> str:
    """The value of ``--data.train`` with every sample of these data sets once an epoch."""
    return json.dumps([{"path": str(part), "weight": len(ShardIndex.load(part))} for part in parts])


def evaluations(folder: Path) -> Runs:
    """The evaluations of the finished runs of a configuration."""
    runs = {run: re.fullmatch(r"fold(\d+)_seed(\d+)", run.name) for run in sorted(folder.glob("fold*"))}
    return {
        (int(name[1]), int(name[2])): run / "evaluation" for run, name in runs.items() if metrics_file(run).exists()
    }


def measured(runs: Runs, plain: Runs, level: float) -> dict[str, tuple[str, Change]]:
    """Every column of the table for one configuration: its value with a 95 % interval, and its change.

    Args:
        runs: its evaluations.
        plain: those without mitigations, on the same parts with the same seeds.
        level: of the changes' intervals.
    """
    parts = [predictions(path) for path, *_ in by_part(runs)]
    assert all(
        predictions(path).key == part.key
        for each in (runs, plain)
        for part, paths in zip(parts, by_part(each), strict=True)
        for path in paths
    ), "all evaluations of a part have the same images"
    errors = np.stack([joined_errors(each) for each in (plain, runs)])
    groups = cells([group for part in parts for group in part.group])
    bins = cells([age_bin for part in parts for age_bin in ten_year_bin(part.age_lo, part.age_hi)])
    columns = {
        "MAE": ((None, np.zeros(errors.shape[1], dtype=np.int64)), np.mean),
        "worst group": (groups, np.max),
        "worst age bin": (bins, np.max),
        "macro MAE": (bins, np.mean),
    }
    rows = {title: by_cells(errors, *where, reduce, level) for title, (where, reduce) in columns.items()}
    return rows | {"degradation": degradation(runs, plain, level)}


def by_part(runs: Runs) -> list[list[Path]]:
    """The evaluations on each part of the images, one for each seed."""
    parts = sorted({part for part, _ in runs})
    return [[path for (own, _), path in sorted(runs.items()) if own == part] for part in parts]


def joined_errors(runs: Runs) -> np.ndarray:
    """(N,) the absolute error of each image of all parts, its mean over the seeds."""
    return np.concatenate([np.mean([errors_of(path) for path in paths], axis=0) for paths in by_part(runs)])


def errors_of(path: Path) -> np.ndarray:
    """(n,) absolute errors of one run, in the order of its part."""
    found = predictions(path)
    return np.abs(age_errors(found.age, found.age_lo, found.age_hi))


@cache
def predictions(path: Path) -> Predictions:
    """The predictions of an evaluation, cached because every row is compared with the same plain ones."""
    return read_csv(path / PREDICTIONS_FILE)[None]


def cells(names: list[str | None]) -> tuple[list[str], np.ndarray]:
    """The names that at least ``LIMIT`` images have, and (N,) the index of each image's name among them, or -1."""
    found, count = np.unique([name or "" for name in names], return_counts=True)
    large = [name for name in found[count >= LIMIT].tolist() if name]
    return large, np.array([large.index(name) if name in large else -1 for name in names])


def by_cells(
    errors: np.ndarray, names: list[str] | None, cell: np.ndarray, reduce: Callable, level: float
) -> tuple[str, Change]:
    """The mean or the largest MAE of the cells, which are groups or age bins.

    Args:
        errors: (2, N) absolute errors, of the plain run and of the other one.
        names: of the cells, None if there is only one.
        cell: (N,) the cell of each image, -1 if it is in none.
        reduce: reduces the MAEs over the cells.
        level: of the change's interval.
    """
    values, cell = counted(*errors[:, cell >= 0]), cell[cell >= 0]

    def statistic(sums: np.ndarray) -> np.ndarray:
        """(B, 2): of the other run, and its difference from the plain run."""
        plain, own = np.moveaxis(reduce(means(sums), axis=1), -1, 0)
        return np.stack([own, own - plain], axis=-1)

    found = statistic(cell_sums(values, cell))[0]
    interval = percentiles(replicates(values, statistic, cell))[:, 0]
    change = percentiles(replicates(values, statistic, cell, TIMES), level)[:, 1]
    worst = ""
    if reduce is np.max:
        worst = f" {names[means(cell_sums(values, cell))[0, :, 1].argmax()]}"
    text = f"{found[0]:.2f}{worst} [{interval[0]:.2f}, {interval[1]:.2f}]"
    return text, (found[1], *change)


def degradation(runs: Runs, plain: Runs, level: float) -> tuple[str, Change]:
    """The mean relative degradation, the mean over the parts.

    Configurations are not paired by image. Their variances are added, so the interval is too wide.
    """
    (value, half), (before, other) = (mean_degradation(each) for each in (runs, plain))
    change, both = value - before, float(np.hypot(half, other)) * normal_quantile(level) / normal_quantile(0.95)
    return f"{value:+.1%} [{value - half:+.1%}, {value + half:+.1%}]", (change, change - both, change + both)


def mean_degradation(runs: Runs) -> tuple[float, float]:
    """The mean relative degradation over the parts, and half the width of its 95 % interval.

    The parts have different images, so their variances add up. The seeds have the same images and are only averaged.
    """
    parts = [[json.loads((path / METRICS_FILE).read_text())["robustness"] for path in paths] for paths in by_part(runs)]
    values = [[each["mean_relative_degradation"] for each in part] for part in parts]
    halves = [[np.ptp(each["mean_relative_degradation_interval"]) / 2 for each in part] for part in parts]
    half = np.linalg.norm([np.mean(part) for part in halves]) / len(parts)
    return float(np.mean([np.mean(part) for part in values])), float(half)


def normal_quantile(level: float) -> float:
    """Standard deviations on either side of the mean that cover this share of a normal distribution."""
    return NormalDist().inv_cdf((1 + level) / 2)


def write_table(finished: dict[str, Runs]) -> None:
    """Write the page, with a row for each configuration and a sentence on each mitigation."""
    level = 1 - 0.05 / max(1, len(finished) - 1)
    plain, rows, amounts = finished["plain"], {}, {}
    for name, runs in finished.items():
        common = sorted(runs.keys() & plain.keys())
        own, other = ({key: each[key] for key in common} for each in (runs, plain))
        amounts[name] = f"{len(joined_errors(own))} / {len(common)}"
        rows[name] = measured(own, other, level)
    titles = list(rows["plain"])
    lines = [f"| {' | '.join(['run', 'images / trainings', *titles])} |", "| --- " * (2 + len(titles)) + "|"]
    for name, row in rows.items():
        texts = [
            text if name == "plain" else f"{text}<br>{_said(title, row[title][1])}" for title, (text, _) in row.items()
        ]
        lines.append(f"| {' | '.join([name, amounts[name], *texts])} |")
    sentences = [f"* {_verdict(name, row)}" for name, row in rows.items() if name != "plain"]
    write_result(TABLE, _head(finished, level) + "\n".join([*lines, "", *sentences]) + "\n")


def _head(finished: dict[str, Runs], level: float) -> str:
    base = yaml.safe_load((CONFIGS / "base.yaml").read_text())
    one = next(iter(finished["plain"].values()))
    metrics = json.loads((one / METRICS_FILE).read_text())
    return (
        "# Effect of the mitigations: balancing, group DRO and augmentation\n\n"
        f"UTKFace part 1 in {len(FOLDS)} random parts (seed 0; a person may be in several). Each part is estimated by "
        f"a model that was trained on the others: {base['model']['backbone']} from ImageNet at "
        f"{base['data']['image_size']} px, {base['optim']['epochs']} epochs, regression by L1, evaluated once. Written "
        f"by `python benchmarks/robustness.py`. {len(finished)} of {len(NAMES)} configurations of configs/robust have "
        "been run.\n\n"
        "* MAE in years with 95 % bootstrap intervals: of all images, of the worst group and the worst ten-year bin "
        f"(of those with {LIMIT} images or more), and the mean over those bins (macro MAE). An image's error is its "
        "mean over the seeds.\n"
        "* The intervals of the worst group and bin are too high, since each bootstrap sample counts its own worst.\n"
        "* Degradation: the mean relative degradation under 10 corruptions at 5 strengths "
        f"({metrics['robustness']['samples']} images of each part). Runs with `augmented` in their name train on the "
        "families of changes that the corruptions belong to, so theirs says nothing about other corruptions.\n"
        "* The second line is the difference from `plain` on the same images, paired by image except for the "
        f"degradation. Its interval has a level of {level:.2%} (95 % for all rows of one column together).\n"
        "* The intervals hold for other images, not for other trainings.\n\n"
    )


def _said(title: str, change: Change) -> str:
    form = "+.1%" if title == "degradation" else "+.2f"
    value, lower, upper = change
    return f"{value:{form}} [{lower:{form}}, {upper:{form}}] {_judged(change)}"


def _judged(change: Change) -> str:
    value, lower, upper = change
    return "noise" if lower <= 0 <= upper else "better" if value < 0 else "worse"


def _verdict(name: str, row: dict[str, tuple[str, Change]]) -> str:
    """Which targets a run lowers by more than noise, and whether the MAE stays within what is allowed."""
    by_word: dict[str, list[str]] = {}
    for title in TARGETS:
        by_word.setdefault(_judged(row[title][1]), []).append(title)
    words = {"better": "lowers", "worse": "raises", "noise": "has no effect beyond noise on"}
    parts = [f"{words[word]} the {' and '.join(', '.join(titles).rsplit(', ', 1))}" for word, titles in by_word.items()]
    rise, lower, upper = row["MAE"][1]
    sure = "within" if upper <= ALLOWED else "over" if lower > ALLOWED else None
    likely = "likely within" if rise <= ALLOWED else "likely over"
    helps = "" if "better" in by_word else " It does not help here."
    return (
        f"`{name}` {'; '.join(parts)}. The MAE changes by {rise:+.2f}, {sure or likely} the {ALLOWED} allowed.{helps}"
    )


if __name__ == "__main__":
    main()
