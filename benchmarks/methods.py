"""Every method on the same faces, backbone and budget: one table.

    UTKFACE_DIR=... [WEIGHTS_DIR=...] python benchmarks/methods.py [--only coral forest]

Packs UTKFace (90/10, seed 0), trains every configs/methods/*.yaml through the ordinary command and evaluates it. A run
that was interrupted goes on, a finished one is not repeated, and the table holds what is finished.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[1]
CONFIGS = REPOSITORY / "configs" / "methods"
TABLE = REPOSITORY / "benchmarks" / "results" / "methods.md"
BACKBONE_FILE = "efficientnet_lite0_imagenet.safetensors"


def main() -> None:
    names = sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem != "base")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="METHOD")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs" / "methods", help="shards and runs")
    arguments = parser.parse_args()
    data = arguments.work / "utkface"
    if not data.exists():
        command("mivolo_lite.cli", "pack", "utkface", "--images", os.environ["UTKFACE_DIR"], "--out", data)
    for name in arguments.only:
        if not metrics_file(arguments.work / name).exists():
            train_and_evaluate(name, arguments.work / name, data)
        write_table(names, arguments.work)


def train_and_evaluate(name: str, run: Path, data: Path) -> None:
    """The two ordinary commands."""
    options = ["--run", run, "--resume", "auto", "--data.train", data / "train", "--data.val", data / "val"]
    if "WEIGHTS_DIR" in os.environ:
        weights = Path(os.environ["WEIGHTS_DIR"]) / BACKBONE_FILE
        options += ["--model.pretrained", "false", "--model.weights", weights]
    subprocess.run(
        [sys.executable, REPOSITORY / "train.py", "--config", CONFIGS / f"{name}.yaml", *map(str, options)], check=True
    )
    command(
        "mivolo_lite.cli", "evaluate", "--checkpoint", run / "best", "--data", data / "val", "--out", run / "evaluation"
    )


def command(module: str, *words) -> None:
    code = f"import sys; from {module} import main; main(sys.argv[1:])"
    subprocess.run([sys.executable, "-c", code, *map(str, words)], check=True, cwd=REPOSITORY)


def metrics_file(run: Path) -> Path:
    return run / "evaluation" / "metrics.json"


def write_table(names: list[str], work: Path) -> None:
    """One line a finished method, best first."""
    rows = [row(name, work / name) for name in names if metrics_file(work / name).exists()]
    base = yaml.safe_load((CONFIGS / "base.yaml").read_text())
    head = (
        "# Every method on the same faces\n\n"
        f"UTKFace part 1, {rows[0]['n']} validation faces of a random 90/10 split (seed 0; a person may "
        f"lie in both), {base['model']['backbone']} from ImageNet at {base['data']['image_size']} px, "
        f"{base['optim']['epochs']} epochs, best of the evaluations after each epoch. "
        "Each method decodes as its paper does. Written by `python benchmarks/methods.py`.\n\n"
        "| method | MAE | CS@5 | bias | seconds a step |\n| --- | ---: | ---: | ---: | ---: |\n"
    )
    lines = [
        f"| {row['name']} | {row['mae']:.2f} | {row['cs5']:.1%} | {row['bias']:+.2f} | {row['step']:.2f} |"
        for row in sorted(rows, key=lambda row: row["mae"])
    ]
    TABLE.write_text(head + "\n".join(lines) + "\n")
    print("\n".join(lines))


def row(name: str, run: Path) -> dict:
    metrics = json.loads(metrics_file(run).read_text())
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    speeds = sorted(record["samples_per_second"] for record in log if record["kind"] == "train")
    batch = yaml.safe_load((run / "config.yaml").read_text())["optim"]["global_batch"]
    return {"name": name, "step": batch / speeds[len(speeds) // 2]} | metrics


if __name__ == "__main__":
    main()
