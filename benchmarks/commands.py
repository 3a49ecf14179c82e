"""Trains and evaluates configurations by the ordinary commands. Interrupted runs resume."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
BACKBONE_FILE = "efficientnet_lite0_imagenet.safetensors"


def pack_utkface(out: Path, *options) -> None:
    """Pack the images of UTKFACE_DIR, unless this was done before."""
    if not out.exists():
        command("mivolo_lite.cli", "pack", "utkface", "--images", os.environ["UTKFACE_DIR"], "--out", out, *options)


def train_and_evaluate(
    config: Path,
    run: Path,
    train: Path | str,
    val: Path,
    options: Sequence = (),
    evaluate: Sequence = (),
    imagenet: bool = True,
) -> None:
    """Train and evaluate a configuration. An interrupted run resumes; a finished one is kept.

    Args:
        config: configuration of the training.
        run: folder of the run; the evaluation is written into it.
        train: value of ``--data.train``.
        val: the data set to evaluate on.
        options: further options of the training.
        evaluate: further options of the evaluation.
        imagenet: whether it starts from ImageNet weights, in WEIGHTS_DIR if timm cannot download them.
    """
    if metrics_file(run).exists():
        return
    words = ["--run", run, "--resume", "auto", "--data.train", train, "--data.val", val]
    if imagenet and "WEIGHTS_DIR" in os.environ:
        weights = Path(os.environ["WEIGHTS_DIR"]) / BACKBONE_FILE
        words += ["--model.pretrained", "false", "--model.weights", weights]
    words += options
    subprocess.run([sys.executable, REPOSITORY / "train.py", "--config", config, *map(str, words)], check=True)
    evaluation = run / "evaluation"
    words = ["--checkpoint", run / "best", "--data", val, "--out", evaluation]
    command("mivolo_lite.cli", "evaluate", *words, *evaluate)


def train_all(names: Sequence[str], seeds: int, jobs: int, train: Callable[[str, int], None]) -> None:
    """Train every name with seed 0, then with the next seed, so that an interrupted table still has every name.

    Args:
        names: first arguments of ``train``.
        seeds: number of seeds; each is a second argument of ``train``.
        jobs: trainings at the same time.
        train: runs one training.
    """
    with ThreadPoolExecutor(jobs) as pool:
        pending = [pool.submit(train, name, seed) for seed in range(seeds) for name in names]
        for training in pending:
            training.result()


def training_folder(work: Path, name: str, seed: int) -> Path:
    """The folder of the training of ``name``, which may be several words, with this seed."""
    return work / name.replace(" ", "_") / f"seed-{seed}"


def metrics_file(run: Path) -> Path:
    """The file that exists once a run is trained and evaluated."""
    return run / "evaluation" / "metrics.json"


def command(module: str, *words) -> None:
    code = f"import sys; from {module} import main; main(sys.argv[1:])"
    subprocess.run([sys.executable, "-c", code, *map(str, words)], check=True, cwd=REPOSITORY)
