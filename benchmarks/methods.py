"""Compares every method on the same faces, backbone and budget, with several trainings each.

    UTKFACE_DIR=... [WEIGHTS_DIR=...] python benchmarks/methods.py [--only coral forest] [--seeds 3] [--jobs 2]
    UTKFACE_DIR=... python benchmarks/methods.py --out TABLE.md --options --init_from default --optim.epochs 2

Packs UTKFace (90/10, seed 0), and trains and evaluates every configs/methods/*.yaml by the ordinary commands. An
interrupted run resumes, a finished one is not repeated, and the table has the finished ones. The time of a step is
measured separately, on random images, with the methods taking turns.
"""

import argparse
import json
import statistics
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import yaml
from accelerate import Accelerator
from commands import REPOSITORY, metrics_file, pack_utkface, train_all, train_and_evaluate, training_folder
from timing import interleaved, processor, write_result

from mivolo_lite.config import read_run_config
from mivolo_lite.distributed.data_parallel import DataParallel
from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.evaluation.compare import image_losses, read_runs
from mivolo_lite.experiments.spread import spread
from mivolo_lite.images.packed import Images
from mivolo_lite.labels import GENDERS
from mivolo_lite.loading.batch import Batch
from mivolo_lite.training.optim import build_optimizer
from mivolo_lite.training.run_config import RunConfig, named_options
from mivolo_lite.training.step import OptimizerStep

CONFIGS = REPOSITORY / "configs" / "methods"
BAND = 0.35
"""Target in years: the largest difference of a method from the best."""

TABLE = REPOSITORY / "benchmarks" / "results" / "methods.md"


def main() -> None:
    names = sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem != "base")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="METHOD")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs" / "methods", help="shards and runs")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each method")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time; set OMP_NUM_THREADS accordingly")
    parser.add_argument("--table", action="store_true", help="only write the table of the finished trainings")
    parser.add_argument("--rounds", type=int, default=11, help="steps of every method that are timed")
    parser.add_argument("--out", type=Path, default=TABLE, help="the table")
    parser.add_argument(
        "--options", nargs=argparse.REMAINDER, default=[], help="options of every training; must come last"
    )
    arguments = parser.parse_args()
    if not arguments.table:
        pack_utkface(arguments.work / "utkface")
        train_all(arguments.only, arguments.seeds, arguments.jobs, partial(train, arguments.work, arguments.options))
    rows = read_rows(names, arguments.work, arguments.seeds)
    write_table(arguments.out, rows, seconds_per_step([row.name for row in rows], arguments.rounds))


def train(work: Path, options: list[str], name: str, seed: int) -> None:
    """One training and its evaluation, by the ordinary commands."""
    data = work / "utkface"
    train_and_evaluate(
        CONFIGS / f"{name}.yaml",
        training_folder(work, name, seed),
        data / "train",
        data / "val",
        (*options, "--train.seed", seed),
        imagenet="--init_from" not in options,
    )


def seconds_per_step(names: list[str], rounds: int) -> dict[str, list[float]]:
    """Seconds of an optimizer step of the whole model, by configuration and round."""
    torch.set_num_threads(1)
    return interleaved({name: one_step(CONFIGS / f"{name}.yaml") for name in names}, rounds)


def one_step(path: Path):
    """A function that takes one optimizer step of a configuration on random images."""
    config = read_run_config(["--config", str(path), "--model.pretrained", "false"])
    tasks, optim = [asdict(task) for task in config.tasks], config.optim
    model, method, ages = named_options(config.model), named_options(config.method), asdict(config.ages)
    estimator = Estimator(Card(model, method, ages, config.data.image_size, tasks=tasks))
    estimator.to(memory_format=torch.channels_last)
    engine = DataParallel(Accelerator(cpu=True), estimator, build_optimizer(estimator, optim), optim.clip_norm)
    return partial(OptimizerStep(engine, optim, seed=0), [random_batch(config)], 0)


def random_batch(config: RunConfig) -> Batch:
    generator, samples = np.random.default_rng(0), config.optim.global_batch
    side = config.data.image_size
    images = torch.from_numpy(generator.integers(0, 256, (samples, side, side, 3), dtype=np.uint8)).movedim(-1, 1)
    age = generator.uniform(1, 90, samples).astype(np.float32).round()
    everyone = np.ones(samples, dtype=bool)
    labels = {"age_lo": age, "age_hi": age, "gender": generator.integers(0, len(GENDERS), samples)}
    tasks = {task.name: generator.integers(0, len(task.classes), samples) for task in config.tasks}
    return Batch.assemble({"face": Images.of(images)}, labels, np.arange(samples), everyone, tasks=tasks).tensors()


@dataclass(frozen=True)
class Row:
    """Results of a method's trainings.

    Attributes:
        name: of the configuration.
        epochs: of each training.
        errors: by seed, (N,) absolute errors in years, one for each validation face.
        metrics: the metrics.json of each training.
    """

    name: str
    epochs: float
    errors: dict[int, np.ndarray]
    metrics: list[dict]

    def mean(self, metric: str) -> float:
        """Over the trainings."""
        return statistics.mean(found[metric] for found in self.metrics)


def read_rows(names: list[str], work: Path, seeds: int) -> list[Row]:
    """The row of every method with a finished training."""
    finished = [
        (name, seed)
        for name in names
        for seed in range(seeds)
        if metrics_file(training_folder(work, name, seed)).exists()
    ]
    runs = read_runs([metrics_file(training_folder(work, *training)).parent for training in finished])
    errors = {training: image_losses(run.predictions)["mae"] for training, run in zip(finished, runs, strict=True)}
    return [
        read_row(name, work, {seed: found for (of, seed), found in errors.items() if of == name})
        for name in dict.fromkeys(name for name, _ in finished)
    ]


def read_row(name: str, work: Path, errors: dict[int, np.ndarray]) -> Row:
    folders = [training_folder(work, name, seed) for seed in errors]
    config = yaml.safe_load((folders[0] / "config.yaml").read_text())
    metrics = [json.loads(metrics_file(run).read_text()) for run in folders]
    return Row(name, config["optim"]["epochs"], errors, metrics)


def write_table(out: Path, rows: list[Row], seconds: dict[str, list[float]]) -> None:
    """Write the page, with one row for each method, the best first."""
    rows = sorted(rows, key=lambda row: row.mean("mae"))
    base = yaml.safe_load((CONFIGS / "base.yaml").read_text())
    reference = "classification" if "classification" in seconds else rows[0].name
    against = seconds[reference]
    worst = rows[-1].mean("mae") - rows[0].mean("mae")
    head = (
        "# Every method on the same faces\n\n"
        f"UTKFace part 1, {rows[0].metrics[0]['n']} validation faces of a random 90/10 split (seed 0; a person may "
        f"be in both parts). {base['model']['backbone']} from ImageNet at {base['data']['image_size']} px; "
        "the best of the evaluations after each epoch. Means over seeds. "
        "All but multilevel_tasks train the age only. Written by `python benchmarks/methods.py`. "
        f"{len(rows)} of {len(list(CONFIGS.glob('*.yaml'))) - 1} configurations have been run.\n\n"
        f"The worst is {worst:.2f} years behind the best. The target is at most {BAND}. Differences from the best "
        "are paired by seed and image, with 95 % intervals over trainings and images.\n\n"
        f"Seconds a step: median of {len(against)} steps of {base['optim']['global_batch']} faces, whole model, on one "
        f"thread of {processor()}. Ratio: to {reference}, the median within a round.\n\n"
        "| method | epochs | MAE | of each training | behind the best | CS@5 | bias | seconds a step | ratio |\n"
        "| --- | ---: | ---: | --- | --- | ---: | ---: | ---: | ---: |\n"
    )
    lines = []
    for row in rows:
        own = seconds[row.name]
        ratio = statistics.median(one / other for one, other in zip(own, against, strict=True))
        each = ", ".join(f"{found['mae']:.2f}" for found in row.metrics)
        lines.append(
            f"| {row.name} | {row.epochs:g} | {row.mean('mae'):.2f} | {each} | {behind(row, rows[0])} | "
            f"{row.mean('cs5'):.1%} | {row.mean('bias'):+.2f} | {statistics.median(own):.3f} | {ratio:.2f} |"
        )
    others = [other_tasks(row) for row in rows if "group_accuracy" in row.metrics[0]]
    write_result(out, head + "\n".join([*lines, *others]) + "\n")


def behind(row: Row, first: Row) -> str:
    """How much larger a method's error is than the best one's, with an interval if both have two finished seeds."""
    seeds = sorted(row.errors.keys() & first.errors.keys())
    if row is first or not seeds:
        return ""
    differences = [row.errors[seed] - first.errors[seed] for seed in seeds]
    if len(seeds) < 2:
        return f"{np.mean(differences):+.2f}"
    found = spread(differences)
    return f"{found.mean:+.2f} [{found.over_both[0]:+.2f}, {found.over_both[1]:+.2f}]"


def other_tasks(row: Row) -> str:
    """A sentence on the accuracy of a method's other tasks."""
    accuracies = [f"a {name} accuracy of {row.mean(f'{name}_accuracy'):.1%}" for name in ("gender", "group")]
    return f"\n{row.name} also has {' and '.join(accuracies)}."


if __name__ == "__main__":
    main()
