"""The effect of copies of training images on a model's error, after ``mivolo-lite audit TRAIN VAL --out OUT``:

``python benchmarks/leakage.py --audit OUT --train TRAIN --val VAL --predictions RUN/evaluation/predictions.csv ...``
"""

import argparse
import csv
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--audit", type=Path, required=True, help="folder of the audit")
    parser.add_argument("--train", required=True, help="the training folder, as given to the audit")
    parser.add_argument("--val", required=True, help="the validation folder, as given to the audit")
    parser.add_argument("--predictions", type=Path, nargs="+", required=True)
    options = parser.parse_args()
    copied = copies_of(options.audit / "pairs.csv", options.val, options.train)
    print(f"{len(copied)} samples of {options.val} have a copy in {options.train}; 95 % bootstrap intervals\n")
    print("| run | n | MAE | without copies | difference | copies only | others of the same ages |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for path in options.predictions:
        keys, age, error = read_errors(path)
        print(row(path.parent.parent.name, np.isin(keys, list(copied)), age, error))


def copies_of(pairs: Path, val: str, train: str) -> set[str]:
    """Keys of the samples of ``val`` that are copies of one of ``train``, directly or through others."""
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(sample):
        while parent.setdefault(sample, sample) != sample:
            sample = parent[sample]
        return sample

    with open(pairs, newline="") as file:
        for pair in csv.DictReader(file):
            parent[root((pair["folder_a"], pair["key_a"]))] = root((pair["folder_b"], pair["key_b"]))
    leaking = {root(sample) for sample in parent if sample[0] == train}
    return {sample[1] for sample in parent if sample[0] == val and root(sample) in leaking}


def read_errors(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keys, true ages and absolute errors of the samples with an exact age."""
    with open(path, newline="") as file:
        rows = [line for line in csv.DictReader(file) if line["age"] and ";" not in line["age"]]
    age, estimate = (np.array([float(line[name]) for line in rows]) for name in ("age", "age_pred"))
    return np.array([line["key"] for line in rows]), age, np.abs(estimate - age)


def row(name: str, copied: np.ndarray, age: np.ndarray, error: np.ndarray) -> str:
    rng = np.random.default_rng(0)
    draws = (rng.integers(0, len(error), len(error)) for _ in range(2000))
    differences = [error[draw].mean() - error[draw][~copied[draw]].mean() for draw in draws]
    low, high = np.percentile(differences, [2.5, 97.5])
    difference = error.mean() - error[~copied].mean()
    # Copies differ from the rest in age: the fair comparison is with others of the same ten years.
    decade = age // 10
    expected = np.mean([error[~copied & (decade == one)].mean() for one in decade[copied]])
    return (
        f"| {name} | {len(error)} | {error.mean():.2f} | {error[~copied].mean():.2f} | "
        f"{difference:+.2f} [{low:+.2f}, {high:+.2f}] | {error[copied].mean():.2f} | {expected:.2f} |"
    )


if __name__ == "__main__":
    main()
