"""Gain from the body on real photos, also with covered faces: one model evaluated with faces, bodies and both.

    python benchmarks/covered_photos.py --face runs/mixed_faces/best/model.safetensors --body BODY.safetensors \
        --photos NAME=FOLDER,CSV [...]

NAME is one of the configuration's data sets (aaf, congress, fgnet), FOLDER has its photos, and CSV is MiVOLO's
annotation with boxes of faces and bodies. The photos are packed twice: unchanged, and with a rectangle of one colour
over each face of every second photo (80/20, by person if known). configs/face_body.yaml, or the file of --config, is
trained on both with several seeds, and evaluated on the held-out photos of both, with mirror images. Finished steps are
not repeated; an interrupted run resumes.
"""

import argparse
import csv
import json
import shutil
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from commands import REPOSITORY, command
from timing import write_result

from mivolo_lite.config import read_run_config
from mivolo_lite.evaluation.evaluate import INPUT_SETS
from mivolo_lite.evaluation.metrics import age_errors
from mivolo_lite.evaluation.predictions import PREDICTIONS_FILE, read_csv
from mivolo_lite.shards.index import ShardIndex

CONFIG = REPOSITORY / "configs" / "face_body.yaml"
RESULTS = REPOSITORY / "benchmarks" / "results"
DATA = Path("data/photos")
"""The folder of the shards, as the configurations name it."""
COVERED = "_covered"


class Photos(NamedTuple):
    """A data set: its name, the folder of its photos and its table."""

    name: str
    folder: Path
    table: Path

    @classmethod
    def read(cls, words: str) -> "Photos":
        name, _, rest = words.partition("=")
        folder, _, table = rest.rpartition(",")
        return cls(name, Path(folder), Path(table))


def is_covered(name: str) -> bool:
    """Whether the photo, or the sample cut out of it, is in the covered half."""
    return bool(zlib.crc32(Path(name).stem.encode()) & 1)


def cover(photos: Photos, out: Path) -> None:
    """Write the photos, every second one with a rectangle of one colour over each face."""
    out.mkdir(parents=True)
    boxes: dict[str, list[list[float]]] = {}
    with open(photos.table, newline="") as file:
        for row in csv.DictReader(file):
            boxes.setdefault(row["img_name"], []).append(
                [float(row[f"face_{end}"]) for end in ("x0", "y0", "x1", "y1")]
            )
    for name, faces in boxes.items():
        if not is_covered(name):
            shutil.copy(photos.folder / name, out / name)
            continue
        photo = cv2.imread(str(photos.folder / name))
        colour = np.random.default_rng(zlib.crc32(name.encode())).integers(0, 256, 3).tolist()
        for x0, y0, x1, y1 in faces:
            cv2.rectangle(photo, (round(x0), round(y0)), (round(x1), round(y1)), colour, cv2.FILLED)
        cv2.imwrite(str(out / name), photo, [cv2.IMWRITE_JPEG_QUALITY, 95])


def prepare(photos: Photos, work: Path) -> None:
    """Write the shards of a data set, unchanged and covered."""
    as_is, covered, copies = work / photos.name, work / f"{photos.name}{COVERED}", work / "photos" / photos.name
    if not as_is.exists():
        split = ("--split", "train=0.8,val=0.2", "--out", as_is)
        command("mivolo_lite.cli", "pack", "annotations", "--images", photos.folder, "--csv", photos.table, *split)
    if not covered.exists():
        shutil.rmtree(copies, ignore_errors=True)
        cover(photos, copies)
        table = copies / "annotations.csv"
        write_parts(photos.table, as_is / "val", table)
        command(
            "mivolo_lite.cli", "pack", "csv", "--images", copies, "--csv", table, "--split", "part", "--out", covered
        )


def write_parts(table: Path, val: Path, out: Path) -> None:
    """Add a column for the split to the table, so that a photo is in the same one with and without the rectangle."""
    index = ShardIndex.load(val)
    keys = {index.key(sample) for sample in range(len(index))}
    with open(table, newline="") as source, open(out, "w", newline="") as target:
        reader = csv.DictReader(source)
        writer = csv.DictWriter(target, [*(reader.fieldnames or ()), "part"])
        writer.writeheader()
        for row in reader:
            writer.writerow(row | {"part": "val" if Path(row["img_name"]).stem in keys else "train"})


def train(seed: int, sets: list[Photos], arguments: argparse.Namespace) -> None:
    """One training, by the ordinary command."""
    parts = read_run_config(["--config", str(arguments.config)]).data.train
    data = [{"path": str(arguments.work / Path(part.path).relative_to(DATA)), "weight": part.weight} for part in parts]
    words = ["--run", arguments.work / f"seed-{seed}", "--resume", "auto", "--train.seed", seed]
    words += ["--data.train", json.dumps(data), "--data.val", arguments.work / sets[0].name / "val"]
    words += ["--model.pretrained", "false", "--model.face_weights", arguments.face]
    words += ["--model.body_weights", arguments.body]
    command("mivolo_lite.cli", "train", "--config", arguments.config, *words, *arguments.options)


def evaluate(seed: int, name: str, work: Path) -> dict[str, np.ndarray]:
    """By input, (N,) absolute errors in years; and, as ``covered``, whether each photo is covered."""
    out = work / f"seed-{seed}" / f"evaluation_{name}"
    if not (out / PREDICTIONS_FILE).exists():
        words = ("--checkpoint", work / f"seed-{seed}" / "best", "--data", work / name / "val", "--out", out)
        command(
            "mivolo_lite.cli", "evaluate", *words, "--inputs", ",".join(INPUT_SETS), "--tta", "flip", "--report", "no"
        )
    shown = read_csv(out / PREDICTIONS_FILE)
    errors = {
        str(column): np.abs(age_errors(predictions.age, predictions.age_lo, predictions.age_hi))
        for column, predictions in shown.items()
    }
    errors["covered"] = np.array([is_covered(key) for key in next(iter(shown.values())).key])
    return errors


def rows(sets: list[Photos], seeds: Iterable[int], work: Path) -> list[str]:
    """A row for each data set with unchanged, half covered and covered photos: means over the seeds."""
    lines = []
    for title, end, every in (("as they are", "", True), ("half covered", COVERED, True), ("covered", COVERED, False)):
        pooled: dict[str, list[np.ndarray]] = {column: [] for column in INPUT_SETS}
        for photos in sets:
            found = [evaluate(seed, photos.name + end, work) for seed in seeds]
            here = found[0]["covered"] | every
            errors = {column: np.stack([one[column][here] for one in found]) for column in INPUT_SETS}
            lines.append(line(photos.name, title, errors))
            for column in INPUT_SETS:
                pooled[column].append(errors[column])
        lines.append(line("all", title, {column: np.concatenate(each, axis=1) for column, each in pooled.items()}))
    return lines


def line(name: str, title: str, errors: dict[str, np.ndarray]) -> str:
    """A row of the table from (seeds, N) errors by input; people without one of the images are left out."""
    known = ~np.isnan(np.concatenate(list(errors.values()))).any(axis=0)
    mae = {column: values[:, known].mean(axis=1) for column, values in errors.items()}
    gain = 1 - mae["both"] / mae["face"]
    each = ", ".join(f"{value:.0%}" for value in gain)
    means = " | ".join(f"{mae[column].mean():.2f}" for column in INPUT_SETS)
    return f"| {name} | {title} | {known.sum()} | {means} | {gain.mean():.0%} ({each}) |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Photos.read, nargs="+", required=True, metavar="NAME=FOLDER,CSV")
    parser.add_argument(
        "--config", type=Path, default=CONFIG, help="configuration of a model with two inputs, on these photos"
    )
    parser.add_argument("--face", type=Path, required=True, help="initial weights of the face's backbone")
    parser.add_argument("--body", type=Path, required=True, help="initial weights of the body's backbone")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs" / "covered_photos", help="shards and runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("options", nargs="*", help="options of every training, after --")
    arguments = parser.parse_args()
    for photos in arguments.photos:
        prepare(photos, arguments.work)
    for seed in arguments.seeds:
        train(seed, arguments.photos, arguments)
    head = (
        "# Gain from the body on real photos\n\n"
        f"MAE in years of `configs/{arguments.config.name}` on photos of people that it was not trained on, with "
        f"mirror images; means over seeds {', '.join(map(str, arguments.seeds))}. Written by "
        "`python benchmarks/covered_photos.py`.\n\n"
        "* `half covered`: a rectangle of one colour covers the face in every second photo.\n"
        "* `covered`: these photos only.\n"
        "* Gain: how much lower the error of both is than that of the face alone; in brackets, for each seed.\n\n"
        "| photos | | n | face | body | both | gain |\n| --- | --- | ---: | ---: | ---: | ---: | --- |\n"
    )
    table = RESULTS / f"{arguments.config.stem}.md"
    write_result(table, head + "\n".join(rows(arguments.photos, arguments.seeds, arguments.work)) + "\n")


if __name__ == "__main__":
    main()
