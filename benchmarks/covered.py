"""Gain from the body with covered faces: one model evaluated with faces, bodies and both, on synthetic people.

    python benchmarks/covered.py

Renders people, half of them with a covered face, trains a small dual model on them, and evaluates it on others with
each input, by the ordinary commands. Finished steps are not repeated; an interrupted run resumes.
"""

import argparse
import csv
import json
import tarfile
from pathlib import Path

import numpy as np
from commands import REPOSITORY, command
from timing import write_result

from mivolo_lite.evaluation.evaluate import INPUT_SETS

TABLE = REPOSITORY / "benchmarks" / "results" / "covered.md"
CONFIG = REPOSITORY / "configs" / "quickstart.yaml"
EPOCHS = 10
PEOPLE = {"people": ("--count", 4000, "--seed", 1, "--split", "train=0.95,val=0.05")}
PEOPLE |= {"others": ("--count", 1000, "--seed", 2, "--split", "test=1")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs" / "covered", help="shards and the run")
    work = parser.parse_args().work
    for name, options in PEOPLE.items():
        if not (work / name).exists():
            command("mivolo_lite.cli", "pack", "people", "--covered", 0.5, "--out", work / name, *options)
    run, test = work / "run", work / "others" / "test"
    if not (run / "evaluation").exists():
        words = ("--config", CONFIG, "--run", run, "--resume", "auto", "--optim.epochs", EPOCHS)
        data = ("--data.train", work / "people" / "train", "--data.val", work / "people" / "val")
        command("mivolo_lite.cli", "train", *words, *data)
        words = ("--data", test, "--out", run / "evaluation", "--inputs", ",".join(INPUT_SETS))
        command("mivolo_lite.cli", "evaluate", "--checkpoint", run / "best", *words)
    write_result(TABLE, report(errors_by_half(run / "evaluation" / "predictions.csv", covered(test))))


def covered(folder: Path) -> dict[str, bool]:
    """Whether something hides the face, by sample key."""
    hidden = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                if extension == "json":
                    hidden[key] = json.load(tar.extractfile(member))["covered"]
    return hidden


def errors_by_half(predictions: Path, hidden: dict[str, bool]) -> dict[str, dict[str, np.ndarray]]:
    """Absolute errors in years, by half of the people and by column; ``mean`` is the mean-age baseline."""
    with open(predictions, newline="") as file:
        rows = list(csv.DictReader(file))
    age = np.array([float(row["age"]) for row in rows])
    estimates = {name: np.array([float(row[f"age_pred_{name}"]) for row in rows]) for name in INPUT_SETS}
    estimates["mean"] = np.full(len(age), age.mean())
    errors = {name: np.abs(estimate - age) for name, estimate in estimates.items()}
    is_covered = np.array([hidden[row["key"]] for row in rows])
    halves = {"all": np.full(len(age), True), "covered": is_covered, "uncovered": ~is_covered}
    return {half: {name: error[chosen] for name, error in errors.items()} for half, chosen in halves.items()}


def report(errors: dict[str, dict[str, np.ndarray]]) -> str:
    """The table as markdown."""
    mae = {half: {name: float(error.mean()) for name, error in columns.items()} for half, columns in errors.items()}
    rows = [
        f"| {half} | {len(errors[half]['both'])} | " + " | ".join(f"{value:.2f}" for value in columns.values()) + " |"
        for half, columns in mae.items()
    ]
    everyone, seen = mae["all"], mae["uncovered"]
    asked = [
        ("both against face only", 1 - everyone["both"] / everyone["face"], 0.15),
        ("body only against the mean-age baseline", 1 - everyone["body"] / everyone["mean"], 0.30),
        ("both against face only, uncovered faces", 1 - seen["both"] / seen["face"], 0.0),
    ]
    head = [
        "# Gain from the body with covered faces",
        "",
        f"MAE in years on {len(errors['all']['both'])} synthetic people. About half of them have a covered face. "
        "One dual model (configs/quickstart.yaml)",
        f"was trained for {EPOCHS} epochs on 3,800 others, covered in the same way. "
        "Training hid one face of five and one body of five.",
        "The model is evaluated with the face, the body, and both. Written by `python benchmarks/covered.py`.",
        "",
        "| faces | n | face only | body only | both | mean-age baseline |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    check = ["", "| reduction of the MAE | measured | at least |", "| --- | ---: | ---: |"]
    return (
        "\n".join(head + rows + check + [f"| {what} | {share:.1%} | {least:.0%} |" for what, share, least in asked])
        + "\n"
    )


if __name__ == "__main__":
    main()
