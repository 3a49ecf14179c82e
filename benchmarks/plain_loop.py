"""Training on CPUs against a loop over timm and torchvision that does the same work, as one writes it.

    python benchmarks/plain_loop.py --data DIR

DIR holds indexed shards of faces of 200 px, as UTKFace's chips are. This package trains as
configs/utkface_regression.yaml says, with random weights, by its ordinary trainer. The plain loop is ``plain`` below:
the same backbone, batch, precision, memory format, losses, optimizer, clipping and EMA (timm's), torchvision's crop,
flip, RandAugment and random erasing of the same strength on images that PIL decodes from files, and a DataLoader with
as many workers. Both run on the same threads.

Each repetition trains both ways in turn, each in a new process, and counts the steps after the first few. CPU time is
that of the process and its workers, which load on the machine changes less than the wall clock. Ratios are taken
within a repetition.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from timing import processor

from mivolo_lite.distributed.affinity import spread_over_cpus

spread_over_cpus()  # as train.py does, before torch is imported

import psutil  # noqa: E402
import timm  # noqa: E402
import torch  # noqa: E402
from commands import REPOSITORY  # noqa: E402
from PIL import Image  # noqa: E402
from timm.utils import ModelEmaV3  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

from mivolo_lite.config import read_run_config  # noqa: E402
from mivolo_lite.loading.workers import begin_worker  # noqa: E402
from mivolo_lite.shards.index import ShardIndex  # noqa: E402
from mivolo_lite.shards.storage import open_shards  # noqa: E402
from mivolo_lite.training.loop import Trainer  # noqa: E402
from mivolo_lite.training.run_config import RunConfig  # noqa: E402

RESULTS = REPOSITORY / "benchmarks" / "results" / "plain_loop.md"
CONFIG = REPOSITORY / "configs" / "utkface_regression.yaml"
WAYS = OURS, PLAIN = "this package", "plain timm loop"
WARM_UP = 4
"""Steps before the clocks start: the workers' first batches were made before them."""
TARGET = 1.0


@dataclass(frozen=True)
class Measured:
    """Samples a second of wall time and of CPU time."""

    per_second: float
    per_cpu_second: float


class Clocks:
    """Wall and CPU time from the end of step ``WARM_UP`` to that of the last."""

    def __init__(self):
        self.steps = 0

    def step(self) -> None:
        self.steps += 1
        self.end = (time.perf_counter(), cpu_seconds())
        if self.steps == WARM_UP:
            self.begin = self.end

    def measured(self, batch: int) -> Measured:
        samples = (self.steps - WARM_UP) * batch
        wall, cpu = (end - begin for begin, end in zip(self.begin, self.end, strict=True))
        return Measured(samples / wall, samples / cpu)


def cpu_seconds() -> float:
    """Of this process and its workers."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def ours(config: RunConfig, clocks: Clocks) -> None:
    """This package's training, stopped after its last step."""
    trainer = Trainer(config)
    trainer.logger.step = clocks.step
    trainer.logger.log = lambda text: None
    trainer._evaluate = lambda: True  # the other loop has none
    trainer.train()


class Faces(Dataset):
    """The faces of a folder with ``labels.csv``, decoded by PIL."""

    def __init__(self, folder: Path, transform: v2.Transform):
        self.folder, self.transform = folder, transform
        self.rows = list(csv.reader(open(folder / "labels.csv")))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> tuple[Tensor, float, int]:
        name, age, gender = self.rows[number]
        return self.transform(Image.open(self.folder / name).convert("RGB")), float(age), int(gender)


def plain(config: RunConfig, folder: Path, workers: int, clocks: Clocks) -> None:
    """The loop that one writes oneself: ``steps`` steps of the same training."""
    optim, augment, size = config.optim, config.data.augment, config.data.image_size
    model = timm.create_model(config.model.backbone, num_classes=1 + 2, drop_path_rate=config.model.drop_path_rate)
    model = model.to(memory_format=torch.channels_last)
    mean, std = model.default_cfg["mean"], model.default_cfg["std"]
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=(augment.crop_scale, 1.0)),
            v2.RandomHorizontalFlip(augment.flip),
            v2.RandAugment(augment.randaugment_ops, augment.randaugment_magnitude),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean, std),
            v2.RandomErasing(augment.erase),
        ]
    )
    loader = DataLoader(
        Faces(folder, transform),
        batch_size=optim.global_batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        worker_init_fn=begin_worker,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=optim.lr, weight_decay=optim.weight_decay)
    ema = ModelEmaV3(model, decay=optim.ema_decay)
    model.train()
    for number, (images, age, gender) in zip(range(steps(config)), forever(loader), strict=False):
        output = model(images.to(memory_format=torch.channels_last))
        loss = F.l1_loss(output[:, 0], age.float()) + F.cross_entropy(output[:, 1:], gender)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), optim.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        ema.update(model)
        if number % config.train.log_every == 0:
            loss.item()
        clocks.step()


def forever(loader: DataLoader) -> Iterator:
    for _ in count():
        yield from loader


def steps(config: RunConfig) -> int:
    samples = config.optim.epochs * len(ShardIndex.load(config.data.train))
    return round(samples / config.optim.global_batch)


def run_config(options: argparse.Namespace, run: Path) -> RunConfig:
    """The configuration's own, but for its length and where its data and weights are."""
    words = ["--config", CONFIG, "--run", run, "--data.train", options.data, "--data.val", options.data]
    words += ["--model.pretrained", "false", "--data.workers", options.workers, "--train.trackers", "[]"]
    config = read_run_config([str(word) for word in words])
    config.optim.epochs = (WARM_UP + options.steps) * config.optim.global_batch / len(ShardIndex.load(options.data))
    return config


def unpack(data: Path, folder: Path) -> None:
    """The faces of shards as files with ``labels.csv``, those with an age and a gender."""
    index = ShardIndex.load(data)
    shards = open_shards(index, 1)
    ages, genders = (index.columns[name].tolist() for name in ("age_lo", "gender"))
    with open(folder / "labels.csv", "w") as labels:
        for sample in range(len(index)):
            if ages[sample] == ages[sample] and genders[sample] < 2:
                (folder / f"{sample}.jpg").write_bytes(shards.read("face", sample))
                labels.write(f"{sample}.jpg,{ages[sample]},{genders[sample]}\n")


def train_one(way: str, options: argparse.Namespace, scratch: Path) -> Measured:
    clocks = Clocks()
    with TemporaryDirectory() as run:
        config = run_config(options, Path(run) / "run")
        ours(config, clocks) if way == OURS else plain(config, scratch, options.workers, clocks)
    return clocks.measured(config.optim.global_batch)


def measure(options: argparse.Namespace, scratch: Path) -> dict[str, list[Measured]]:
    """Each way once a repetition, in a process of its own, the first one in turn."""
    found: dict[str, list[Measured]] = {way: [] for way in WAYS}
    for repetition in range(options.repeats):
        for way in WAYS if repetition % 2 else reversed(WAYS):
            words = [sys.executable, __file__, *sys.argv[1:], "--only", way, "--scratch", scratch]
            lines = subprocess.run(list(map(str, words)), check=True, stdout=subprocess.PIPE, text=True).stdout
            found[way].append(Measured(**json.loads(lines.splitlines()[-1])))
            print(repetition + 1, way, found[way][-1], flush=True)
    return found


def report(options: argparse.Namespace, found: dict[str, list[Measured]]) -> str:
    """The table as markdown."""
    lines = [
        "# Training on CPUs against a plain timm loop",
        "",
        f"`python benchmarks/plain_loop.py --steps {options.steps} --repeats {options.repeats} --workers "
        f"{options.workers}`",
        f"on {os.cpu_count()} CPUs of {processor()}, load average {os.getloadavg()[1]:.1f}, torch {torch.__version__}, "
        f"timm {timm.__version__}: configs/utkface_regression.yaml, medians of {options.repeats} repetitions.",
        "",
        "| | samples/s | samples per CPU second |",
        "| --- | ---: | ---: |",
    ]
    for way, measured in found.items():
        wall, cpu = (statistics.median(getattr(each, name) for each in measured) for name in FIELDS)
        lines.append(f"| {way} | {wall:.1f} | {cpu:.1f} |")
    ratios = [
        [getattr(a, name) / getattr(b, name) for a, b in zip(found[OURS], found[PLAIN], strict=True)] for name in FIELDS
    ]
    wall, cpu = (statistics.median(each) for each in ratios)
    lines.append(f"| ratio, at least {TARGET} | {wall:.2f} | {cpu:.2f} |")
    spread = ", ".join(f"{ratio:.2f}" for ratio in ratios[1])
    lines += ["", f"Ratios of CPU time in the repetitions: {spread}."]
    return "\n".join(lines) + "\n"


FIELDS = ("per_second", "per_cpu_second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of indexed shards of faces")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(vars(train_one(options.only, options, options.scratch))))
        return
    with TemporaryDirectory() as scratch:
        unpack(options.data, Path(scratch))
        text = report(options, measure(options, Path(scratch)))
    print(text)
    RESULTS.write_text(text)


if __name__ == "__main__":
    main()
