"""Exports every model with every method, and writes a table of the differences from the estimators' outputs.

    python -m benchmarks.export --rows rows.jsonl
    python -m benchmarks.export --rows rows.jsonl --models mivolo_d1_224 --methods regression --precision fp16

The small models have the same layers as the large ones, and are those of the tests. Each export adds a row to the file,
and the table is written from all rows, so several processes can share the work.
"""

import argparse
import json
import re
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.timing import processor
from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.inference.export import export
from mivolo_lite.methods import METHODS
from mivolo_lite.models import MODELS
from tests.inference.exports import SMALL, small_estimator
from tests.models.tiny import TinyMivolo

LARGE = {
    "swinface at 112 px": ({"name": "swinface"}, 112),
    "mivolo_d1_224": ({"name": "mivolo_d1_224"}, 224),
    "efficientnet_lite0": ({"name": "single", "backbone": "efficientnet_lite0"}, 128),
}
RESULTS = Path(__file__).parent / "results" / "export.md"


def make(name: str, method: str) -> Estimator:
    if name not in LARGE:
        return small_estimator(name, method, tasks=[], calibration={})
    model, size = LARGE[name]
    return Estimator(Card(dict(model), {"name": method}, {"min_age": 0, "max_age": 100}, size)).eval()


def measure(name: str, method: str, precision: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        make(name, method).save(Path(folder, "best"))
        start = time.process_time()
        lines = export(Path(folder, "best"), Path(folder, "model.onnx"), "onnx", precision)
        seconds, megabytes = time.process_time() - start, Path(folder, "model.onnx").stat().st_size / 1e6
    largest = {output: worst(output, lines) for output in ("age", "age_mean", "gender")}
    return {"model": name, "method": method, "precision": precision, **largest, "cases": len(lines),
            "seconds": seconds, "megabytes": megabytes}  # fmt: skip


def worst(output: str, lines: list[str]) -> float | None:
    """The largest difference in the lines of all cases; None if the method has no such output."""
    found = [float(value) for line in lines for value in re.findall(rf"[:,] {output} ([^,]+)", line)]
    return max(found, default=None)


def table(rows: list[dict]) -> str:
    """The page as markdown, with the last row of each export."""
    latest = {(row["precision"] != "fp32", row["model"], list(METHODS).index(row["method"])): row for row in rows}
    done = sum(not half and model in SMALL for half, model, _ in latest)
    head = [
        "# Exported files against their estimators",
        "",
        f"`python -m benchmarks.export --rows rows.jsonl` on {processor()}, 2 cores, busy; torch {torch.__version__}.",
        "Compares exported ONNX files, run by onnxruntime, with their estimators, on random images.",
        "",
        "* Age, mean and P(gender) are largest differences over batches of 1, 2 and 5 samples. Models with two inputs",
        "  are also compared without the face, without the body, and with each missing in some of the samples.",
        "* Methods that estimate whole years differ by 0 or 1. For them, the difference of the distribution's mean is",
        "  more informative.",
        "* CPU s is the CPU time of the export and the comparison.",
        "",
        f"{done} of the {len(SMALL) * len(METHODS)} pairs of a small model and a method have been run.",
        "",
        "| model | method | precision | age, years | mean, years | P(gender) | cases | MB | CPU s |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    return "\n".join([*head, *(line(latest[key]) for key in sorted(latest))]) + "\n"


def line(row: dict) -> str:
    differences = " | ".join("" if row[name] is None else f"{row[name]:.1e}" for name in ("age", "age_mean", "gender"))
    numbers = f"{differences} | {row['cases']} | {row['megabytes']:.1f} | {row['seconds']:.1f}"
    return f"| {row['model']} | {row['method']} | {row['precision']} | {numbers} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True, help="file to which a line is added for each export")
    parser.add_argument("--models", nargs="*", default=list(SMALL), choices=[*SMALL, *LARGE])
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--precision", default="fp32", choices=["fp32", "fp16"])
    options = parser.parse_args()
    MODELS["mivolo_tiny"] = TinyMivolo
    for name in options.models:
        for method in options.methods:
            row = measure(name, method, options.precision)
            print(row, flush=True)
            with options.rows.open("a") as file:
                file.write(json.dumps(row) + "\n")
    RESULTS.write_text(table([json.loads(line) for line in options.rows.read_text().splitlines()]))


if __name__ == "__main__":
    main()
