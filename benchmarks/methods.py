"""Every method on the same faces, backbone and budget: one table.

    UTKFACE_DIR=... [WEIGHTS_DIR=...] python benchmarks/methods.py [--only coral forest]

Packs UTKFace (90/10, seed 0), trains every configs/methods/*.yaml through the ordinary command and evaluates it. A run
that was interrupted resumes, a finished one is not repeated, and the table holds what is finished. A step's time is
measured apart from the runs, on random images, the methods taking turns.
"""

import argparse
import json
import statistics
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
import yaml
from accelerate import Accelerator
from commands import REPOSITORY, metrics_file, pack_utkface, train_and_evaluate
from timing import interleaved, processor

from mivolo_lite.config import read_run_config
from mivolo_lite.distributed.data_parallel import DataParallel
from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.evaluation.compare import compare
from mivolo_lite.images.packed import Images
from mivolo_lite.labels import GENDERS
from mivolo_lite.loading.batch import Batch
from mivolo_lite.training.optim import build_optimizer
from mivolo_lite.training.run_config import RunConfig, named_options
from mivolo_lite.training.step import OptimizerStep

CONFIGS = REPOSITORY / "configs" / "methods"
BAND = 0.5
"""Years within which every method should lie of the best."""

TABLE = REPOSITORY / "benchmarks" / "results" / "methods.md"


def main() -> None:
    names = sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem != "base")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="METHOD")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs" / "methods", help="shards and runs")
    parser.add_argument("--rounds", type=int, default=11, help="steps of every method that are timed")
    arguments = parser.parse_args()
    data = arguments.work / "utkface"
    pack_utkface(data)
    for name in arguments.only:
        train_and_evaluate(CONFIGS / f"{name}.yaml", arguments.work / name, data / "train", data / "val")
    finished = [name for name in names if metrics_file(arguments.work / name).exists()]
    write_table(finished, arguments.work, seconds_per_step(finished, arguments.rounds))


def seconds_per_step(names: list[str], rounds: int) -> dict[str, list[float]]:
    """Seconds of an optimizer step of each configuration, whole model included, by round."""
    torch.set_num_threads(1)
    return interleaved({name: one_step(CONFIGS / f"{name}.yaml") for name in names}, rounds)


def one_step(path: Path):
    """A function that does one optimizer step of a configuration on random images."""
    config = read_run_config(["--config", str(path), "--model.pretrained", "false"])
    tasks, optim = [asdict(task) for task in config.tasks], config.optim
    model, method, ages = named_options(config.model), named_options(config.method), asdict(config.ages)
    estimator = Estimator(Card(model, method, ages, config.data.image_size, tasks=tasks))
    estimator.to(memory_format=torch.channels_last)
    engine = DataParallel(Accelerator(cpu=True), estimator, build_optimizer(estimator, optim), optim.clip_norm)
    return partial(OptimizerStep(engine, optim.gender_weight, seed=0), [random_batch(config)], 0)


def random_batch(config: RunConfig) -> Batch:
    generator, samples = np.random.default_rng(0), config.optim.global_batch
    side = config.data.image_size
    images = torch.from_numpy(generator.integers(0, 256, (samples, side, side, 3), dtype=np.uint8)).movedim(-1, 1)
    age = generator.uniform(1, 90, samples).astype(np.float32).round()
    everyone = np.ones(samples, dtype=bool)
    labels = {"age_lo": age, "age_hi": age, "gender": generator.integers(0, len(GENDERS), samples)}
    tasks = {task.name: generator.integers(0, len(task.classes), samples) for task in config.tasks}
    return Batch.assemble({"face": Images.of(images)}, labels, np.arange(samples), everyone, tasks=tasks).tensors()


def write_table(names: list[str], work: Path, seconds: dict[str, list[float]]) -> None:
    """One line a finished method, best first."""
    rows = sorted((finished_run(work, name) for name in names), key=lambda row: row["mae"])
    comparison = compare([metrics_file(work / row["name"]).parent for row in rows])
    base = yaml.safe_load((CONFIGS / "base.yaml").read_text())
    reference = "classification" if "classification" in seconds else names[0]
    against = seconds[reference]
    head = (
        "# Every method on the same faces\n\n"
        f"UTKFace part 1, {rows[0]['n']} validation faces of a random 90/10 split (seed 0; a person may "
        f"lie in both), {base['model']['backbone']} from ImageNet at {base['data']['image_size']} px, "
        "the best of the evaluations after each epoch. "
        "Age alone is trained but for multilevel_tasks. Written by `python benchmarks/methods.py`; "
        f"{len(names)} of {len(list(CONFIGS.glob('*.yaml'))) - 1} configurations have been run.\n\n"
        f"Errors behind the first are paired by image, in intervals of {comparison['level']:.2%} (95 % for all "
        f"together); at most {BAND} years are asked for.\n\n"
        f"Seconds a step: median of {len(against)} steps of {base['optim']['global_batch']} faces, whole model, on one "
        f"thread of {processor()}; beside it the median ratio to {reference}'s within a round.\n\n"
        "| method | epochs | MAE | behind the first | CS@5 | bias | seconds a step | ratio |\n"
        "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |\n"
    )
    lines = []
    for row, compared in zip(rows, comparison["rows"], strict=True):
        own = seconds[row["name"]]
        ratio = statistics.median(one / other for one, other in zip(own, against, strict=True))
        lines.append(
            f"| {row['name']} | {row['epochs']:g} | {row['mae']:.2f} | {behind(compared)} | {row['cs5']:.1%} | "
            f"{row['bias']:+.2f} | {statistics.median(own):.3f} | {ratio:.2f} |"
        )
    others = [other_tasks(row) for row in rows if "group_accuracy" in row]
    TABLE.write_text(head + "\n".join([*lines, *others]) + "\n")
    print("\n".join([*lines, *others]))


def finished_run(work: Path, name: str) -> dict:
    """What was measured of a run, with its name and the epochs that it was trained for."""
    config = yaml.safe_load((work / name / "config.yaml").read_text())
    return {"name": name, "epochs": config["optim"]["epochs"]} | json.loads(metrics_file(work / name).read_text())


def behind(compared: dict) -> str:
    """How much larger a method's error is than the first's, with the interval."""
    difference = compared["mae"].get("difference")
    if difference is None:
        return ""
    lower, upper = difference["interval"]
    return f"{difference['value']:+.2f} [{lower:+.2f}, {upper:+.2f}]"


def other_tasks(metrics: dict) -> str:
    """A sentence on what else a run learnt."""
    right = [f"{metrics[f'{name}_accuracy']:.1%} of the {name}s" for name in ("gender", "group")]
    return f"\n{metrics['name']} tells {' and '.join(right)} right as well."


if __name__ == "__main__":
    main()
