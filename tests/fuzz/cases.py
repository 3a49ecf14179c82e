"""What each kind of damaged file is given to: a command line over files that a seed alone decides."""

import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import simplejpeg
import torch
import yaml

from mivolo_lite.cli import main
from tests.fuzz import mutations

ROWS = [
    ["img_name", "age", "gender", "face_x0", "face_y0", "face_x1", "face_y1"],
    *([f"{number}.jpg", str(20 + number), "MF"[number % 2], "10", "10", "60", "60"] for number in range(6)),
]

_PACK = "--out out --split train=1 --workers 1 --max-reject-rate 1"


@dataclass(frozen=True)
class Case:
    """A command over damaged files.

    Attributes:
        argv: the command, run in the case's folder.
        writes: names in that folder that the command may write; nothing else may change.
    """

    argv: list[str]
    writes: tuple[str, ...] = ("out",)


def make_corpus(folder: Path) -> Path:
    """Whole files of every kind, which cases damage: images, shards, a run with two checkpoints, an evaluation."""
    random = np.random.default_rng(0)
    images = folder / "images"
    images.mkdir(parents=True)
    for number in range(6):
        (images / f"{number}.jpg").write_bytes(simplejpeg.encode_jpeg(_photo(random)))
    config = {
        "run": "run", "resume": "auto",
        "data": {"train": "packed/train", "val": "packed/val", "image_size": 32, "workers": 0},
        "model": {"name": "single", "backbone": "test_resnet"},
        "optim": {"epochs": 2, "global_batch": 8, "warmup_epochs": 0},
        "train": {"log_every": 1, "eval_batch": 8},
    }  # fmt: skip
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    torch.save({"state_dict": {"conv1.weight": torch.zeros(3, 3)}, "min_age": 0, "max_age": 95}, folder / "old.pth.tar")
    with _silently(folder):
        main("pack people --count 24 --out packed --split train=0.7,val=0.3 --workers 1 --samples-per-shard 8".split())
        main("train --config c.yaml".split())
        main("evaluate --checkpoint run/best --data packed/val --out evaluation --report no --workers 0".split())
    return folder


def _photo(random: np.random.Generator) -> np.ndarray:
    return random.integers(0, 255, (8, 8, 3), dtype=np.uint8).repeat(12, axis=0).repeat(12, axis=1)


@contextmanager
def _silently(folder: Path) -> Iterator[None]:
    """Work in a folder, with the output kept from the screen."""
    with chdir(folder), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


def _change(path: Path, how: Callable[[bytes, Random, bytes], bytes], random: Random, other: bytes = b"") -> None:
    path.write_bytes(how(path.read_bytes(), random, other))


def _choose(folder: Path, pattern: str, random: Random) -> Path:
    return random.choice(sorted(folder.glob(pattern)))


def _copy(corpus: Path, folder: Path, *names: str) -> None:
    for name in names:
        source = corpus / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy(source, folder / name)


def jpegs(corpus: Path, folder: Path, random: Random) -> Case:
    """Images to be packed, and images in shards that are evaluated."""
    _copy(corpus, folder, "images")
    damaged = {path: mutations.jpeg(path.read_bytes(), random) for path in sorted((folder / "images").iterdir())[:5]}
    if random.random() < 0.5:
        for path, data in damaged.items():
            path.rename(path.with_name(f"{path.stem}_0_0_2017.jpg")).write_bytes(data)
        return Case(f"pack utkface --images images {_PACK}".split(), ("out", "out.partial"))
    _copy(corpus, folder, "run/best")
    (folder / "shards").mkdir()
    with tarfile.open(folder / "shards" / "s.tar", "w") as shard:
        for number, data in enumerate(damaged.values()):
            _add(shard, f"{number}.face.jpg", data)
            _add(shard, f"{number}.json", b'{"age": 30, "gender": "F"}')
    with _silently(folder):
        try:
            main("index shards --workers 1 --max-reject-rate 1".split())
        except SystemExit:
            return Case("index shards --workers 1 --max-reject-rate 1".split(), ("shards",))
    return Case("evaluate --checkpoint run/best --data shards --out out --report no --workers 0".split())


def _add(shard: tarfile.TarFile, name: str, data: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(data)
    shard.addfile(header, io.BytesIO(data))


def tars(corpus: Path, folder: Path, random: Random) -> Case:
    """Shards of somebody else to be indexed."""
    (folder / "shards").mkdir()
    for number, name in enumerate(("train-000000.tar", "train-000002.tar")):
        shutil.copy(corpus / "packed" / "train" / name, folder / "shards" / f"s{number}.tar")
    other = (corpus / "packed" / "val" / "val-000000.tar").read_bytes()
    _change(folder / "shards" / "s0.tar", mutations.tar, random, other)
    return Case("index shards --workers 1 --max-reject-rate 1".split(), ("shards",))


def labels(corpus: Path, folder: Path, random: Random) -> Case:
    """Labels within shards."""
    label = {"age": [20, 30], "gender": "M", "group": "a", "subject": "s", "face_box": [0, 0, 1, 1], "extra": {"a": 1}}
    (folder / "shards").mkdir()
    image = (corpus / "images" / "0.jpg").read_bytes()
    with tarfile.open(folder / "shards" / "s.tar", "w") as shard:
        for number in range(random.choice((1, 8))):
            _add(shard, f"{number}.face.jpg", image)
            _add(shard, f"{number}.json", mutations.json_text(label, random))
    return Case("index shards --workers 1 --max-reject-rate 1".split(), ("shards",))


def csvs(corpus: Path, folder: Path, random: Random) -> Case:
    """Tables of labels, with their images."""
    _copy(corpus, folder, "images")
    (folder / "a.csv").write_bytes(mutations.csv_text(ROWS, random))
    return Case(f"pack annotations --images images --csv a.csv {_PACK}".split(), ("out", "out.partial"))


def configurations(corpus: Path, folder: Path, random: Random) -> Case:
    """A run's YAML, or an option of the command line. No data is there, so nothing trains."""
    tree = yaml.safe_load((corpus / "run" / "config.yaml").read_text())
    words = ["train", "--config", "a.yaml"]
    if random.random() < 0.5:
        tree["model"] = random.choice(
            ({"name": "dual"}, {"name": "swinface"}, {"name": "multilevel", "levels": 2}, tree["model"])
        )
        tree["method"] = {"name": random.choice(("forest", "regression", "dldl", "unimodal", "corn"))}
        tree["tasks"] = [{"name": "smile", "classes": ["no", "yes"]}]
    tree["data"]["train"] = random.choice(("nowhere", [{"path": "nowhere", "weight": 2}, "nowhere2"]))
    (folder / "a.yaml").write_bytes(mutations.yaml_text(tree, random))
    if random.random() < 0.2:
        (folder / "b.yaml").write_bytes(mutations.yaml_text({"base": "a.yaml", "optim": {"lr": 1.0}}, random))
        words[2] = "b.yaml"
    if random.random() < 0.5:
        key = random.choice(
            ("optim.lr", "data.augment", "tasks", "method", "run", "data.train", "a.b", "optim", "", "train..seed")
        )
        words += [f"--{key}={_word(random)}", "--data.val=nowhere"]
    return Case(words, ("run",))


def _word(random: Random) -> str:
    """What a shell can hand over: no NUL, no lone surrogates but those of undecodable bytes."""
    text = str(mutations.value(random))[:100_000].replace("\0", "")
    return text.encode(errors="surrogateescape" if "\ud800" not in text else "replace").decode(errors="surrogateescape")


_STRANGERS = ("step-000000009", "step-x", "step-000000005.partial", "step--1", "copy", "step-" + "9" * 30)
"""Names of copies that stand beside the checkpoints."""

_RESUME = ["train", "--config", "c.yaml", "--optim.epochs", "2"]


def checkpoints(corpus: Path, folder: Path, random: Random) -> Case:
    """Checkpoints that a run resumes from, or that are evaluated."""
    _copy(corpus, folder, "run", "c.yaml", "packed")
    latest = sorted((folder / "run" / "checkpoints").iterdir())[-1]
    _damage_one(latest, random)
    if random.random() < 0.3:
        words = (
            f"evaluate --checkpoint run/checkpoints/{latest.name} --data packed/val --out out --report no --workers 0"
        )
        return Case(words.split())
    return Case(_RESUME, ("run",))


def _damage_one(folder: Path, random: Random) -> None:
    """Damage, lose or replace one file of a folder."""
    path = _choose(folder, "*.*", random)
    action = random.randrange(20)
    if action == 0:
        path.unlink()
    elif action == 1:
        path.unlink()
        random.choice(
            (lambda: path.mkdir(), lambda: path.symlink_to("/dev/zero"), lambda: path.symlink_to(path.name))
        )()
    elif path.suffix == ".safetensors":
        _change(path, mutations.safetensors, random)
    elif path.suffix == ".yaml":
        path.write_bytes(mutations.yaml_text(yaml.safe_load(path.read_text()), random))
    elif path.suffix == ".json":
        path.write_bytes(mutations.json_text(json.loads(path.read_text()), random))
    else:
        _change(path, mutations.lines, random)


def best(corpus: Path, folder: Path, random: Random) -> Case:
    """A folder of weights that is evaluated, calibrated, started from or converted."""
    _copy(corpus, folder, "run/best", "packed")
    _damage_one(folder / "run" / "best", random)
    command = random.choice(
        (
            "evaluate --checkpoint run/best --data packed/val --out out --report no --workers 0",
            "calibrate --checkpoint run/best --data packed/val --workers 0 --level 0.5",
            "convert run/best out.pth",
        )
    )
    return Case(command.split(), ("out", "out.pth", "run"))


def run_folders(corpus: Path, folder: Path, random: Random) -> Case:
    """A run's own small files, and strangers among them."""
    _copy(corpus, folder, "run", "c.yaml", "packed")
    run = folder / "run"
    (run / "broken.jsonl").write_text(json.dumps({"step": 1, "image": "a.face: b"}) + "\n")
    action = random.randrange(4)
    if action == 0:
        stranger = random.choice(_STRANGERS)
        shutil.copytree(
            _choose(run / "checkpoints", "step-*", random), run / "checkpoints" / stranger, dirs_exist_ok=True
        )
    elif action == 1:
        place = _choose(run, "*", random)
        if place.is_dir():
            shutil.rmtree(place)
            place.write_bytes(b"x")
        else:
            place.unlink()
            place.mkdir()
    else:
        _damage_one(run, random)
    return Case(_RESUME, ("run",))


def indexes(corpus: Path, folder: Path, random: Random) -> Case:
    """An index that does not fit its shards."""
    _copy(corpus, folder, "packed", "run/best", "c.yaml")
    part = random.choice(("train", "val"))
    _damage_one(folder / "packed" / part, random) if random.random() < 0.3 else _damage_index(
        folder / "packed" / part, random
    )
    command = random.choice(
        (
            f"evaluate --checkpoint run/best --data packed/{part} --out out --report no --workers 0",
            f"audit packed/{part} --out out --workers 1",
            "train --config c.yaml --run out --optim.epochs 0.5",
        )
    )
    return Case(command.split())


def _damage_index(folder: Path, random: Random) -> None:
    if random.random() < 0.5:
        path = folder / "dataset.json"
        path.write_bytes(mutations.json_text(json.loads(path.read_text()), random))
    else:
        _change(folder / "index.safetensors", mutations.safetensors, random)


def evaluations(corpus: Path, folder: Path, random: Random) -> Case:
    """The numbers of evaluations that are compared."""
    _copy(corpus, folder, "evaluation")
    shutil.copytree(folder / "evaluation", folder / "second")
    table = folder / "second" / "predictions.csv"
    if random.random() < 0.7:
        table.write_bytes(mutations.csv_text([line.split(",") for line in table.read_text().splitlines()], random))
    else:
        _damage_one(folder / "second", random)
    return Case("compare evaluation second".split(), ())


def published(corpus: Path, folder: Path, random: Random) -> Case:
    """Files of ``torch.save`` that are converted, or that a model starts from."""
    data = mutations.torch_file((corpus / "old.pth.tar").read_bytes(), random)
    (folder / "old.pth.tar").write_bytes(data)
    if random.random() < 0.6:
        return Case("convert old.pth.tar out".split())
    _copy(corpus, folder, "packed", "c.yaml")
    return Case("train --config c.yaml --model.weights old.pth.tar --optim.epochs 0.5".split(), ("run",))


KINDS: dict[str, Callable[[Path, Path, Random], Case]] = {
    "jpegs": jpegs,
    "tars": tars,
    "labels": labels,
    "csvs": csvs,
    "configurations": configurations,
    "checkpoints": checkpoints,
    "best": best,
    "run folders": run_folders,
    "indexes": indexes,
    "evaluations": evaluations,
    "published": published,
}
"""Makers of cases, by the kind of file that they damage."""
