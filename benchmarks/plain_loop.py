"""Training on CPUs compared with a straightforward loop over timm and torchvision that does the same work.

    python benchmarks/plain_loop.py --data DIR

DIR has indexed shards of faces of 200 px, such as UTKFace's chips. The ordinary trainer trains
benchmarks/plain_loop.yaml with random weights. The plain loop is ``plain`` below: the same backbone, batch, precision,
memory format, losses, optimizer, clipping and EMA (timm's), torchvision's crop, flip, RandAugment and random erasing of
the same strength on images that PIL decodes from files, and a DataLoader with the same number of workers. Both run on
the same threads.

Both take turns step by step in one process, each with its own worker processes, so that other load slows both alike.
Ratios are computed within each pair of steps. The workers' CPU time is counted over the whole run.
"""

import argparse
import csv
import statistics
import time
from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path
from tempfile import TemporaryDirectory

from timing import machine, write_result

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
from mivolo_lite.loading.worker_process import begin_worker  # noqa: E402
from mivolo_lite.shards.index import ShardIndex  # noqa: E402
from mivolo_lite.shards.storage import open_shards  # noqa: E402
from mivolo_lite.training.loop import Trainer  # noqa: E402
from mivolo_lite.training.run_config import RunConfig  # noqa: E402

RESULTS = REPOSITORY / "benchmarks" / "results" / "plain_loop.md"
CONFIG = REPOSITORY / "benchmarks" / "plain_loop.yaml"
WAYS = OURS, PLAIN = "this package", "plain timm loop"
WARM_UP = 4
"""Steps before the clocks start, since the workers made their first batches earlier."""
TARGET = 1.0


class Turns:
    """Lets the plain loop take a step after each of this package's, and keeps the seconds of both.

    Attributes:
        wall, cpu: by loop, seconds of this process for each step.
        workers: by loop, CPU seconds of its worker processes.
    """

    def __init__(self, plain_steps: Iterator[None]):
        self.wall, self.cpu = ({way: [] for way in WAYS} for _ in range(2))
        self.workers: dict[str, float] = {}
        self._plain_steps, self._steps = plain_steps, 0
        next(plain_steps)  # its workers start
        self._plain_workers = psutil.Process().children()

    def begin(self) -> None:
        self._now = time.perf_counter(), time.process_time()

    def step(self) -> None:
        """Called after each step of this package."""
        self._mark(OURS)
        next(self._plain_steps)
        self._mark(PLAIN)
        self._steps += 1
        if self._steps == WARM_UP:
            self._before = self._workers_seconds()
        self.workers = self._workers_seconds()

    def _mark(self, way: str) -> None:
        before, self._now = self._now, (time.perf_counter(), time.process_time())
        if self._steps >= WARM_UP:
            for seconds, begin, end in zip((self.wall, self.cpu), before, self._now, strict=True):
                seconds[way].append(end - begin)

    def _workers_seconds(self) -> dict[str, float]:
        seconds = dict.fromkeys(WAYS, 0.0)
        for child in psutil.Process().children():
            times = child.cpu_times()
            seconds[PLAIN if child in self._plain_workers else OURS] += times.user + times.system
        return seconds

    def worker_seconds(self, way: str) -> float:
        """CPU seconds a step of a loop's workers, after the warm-up."""
        return (self.workers[way] - self._before[way]) / (self._steps - WARM_UP)


def take_turns(config: RunConfig, folder: Path, workers: int) -> Turns:
    """Train with this package, and take a step of the plain loop after each of its steps."""
    trainer = Trainer(config)
    turns = Turns(plain(config, folder, workers))
    trainer.logger.step = turns.step
    trainer.logger.log = lambda text: None
    trainer._evaluate = lambda: True  # the other loop has none
    turns.begin()
    trainer.train()
    return turns


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


def plain(config: RunConfig, folder: Path, workers: int) -> Iterator[None]:
    """A straightforward timm loop, which pauses after each step, and once before the first."""
    optim = config.optim
    model = timm.create_model(config.model.backbone, num_classes=1 + 2, drop_path_rate=config.model.drop_path_rate)
    model = model.to(memory_format=torch.channels_last)
    loader = plain_loader(config, folder, workers, model.default_cfg)
    optimizer = torch.optim.AdamW(model.parameters(), lr=optim.lr, weight_decay=optim.weight_decay)
    ema = ModelEmaV3(model, decay=optim.ema_decay)
    model.train()
    batches = forever(loader)
    waiting = next(batches)
    yield
    for number, (images, age, gender) in enumerate(chain([waiting], batches)):
        output = model(images.to(memory_format=torch.channels_last))
        loss = F.l1_loss(output[:, 0], age.float()) + F.cross_entropy(output[:, 1:], gender)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), optim.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        ema.update(model)
        if number % config.train.log_every == 0:
            loss.item()
        yield


def plain_loader(config: RunConfig, folder: Path, workers: int, normalisation: dict) -> DataLoader:
    augment = config.data.augment
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(config.data.image_size, scale=(augment.crop_scale, 1.0)),
            v2.RandomHorizontalFlip(augment.flip),
            v2.RandAugment(augment.randaugment_ops, augment.randaugment_magnitude),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(normalisation["mean"], normalisation["std"]),
            v2.RandomErasing(augment.erase),
        ]
    )
    return DataLoader(
        Faces(folder, transform),
        batch_size=config.optim.global_batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        worker_init_fn=begin_worker,
    )


def forever(loader: DataLoader) -> Iterator:
    for _ in count():
        yield from loader


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


def report(options: argparse.Namespace, turns: Turns, batch: int) -> str:
    """The table as markdown."""
    lines = [
        "# Training on CPUs against a plain timm loop",
        "",
        f"`python benchmarks/plain_loop.py --steps {options.steps} --workers {options.workers}`",
        f"on {machine()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}, timm {timm.__version__}: "
        f"benchmarks/plain_loop.yaml, medians of {options.steps} pairs of steps.",
        "",
        "| | samples/s, step by step | CPU ms a sample, training | CPU ms a sample, workers | samples per CPU second |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    training, loading = {}, {}
    for way in WAYS:
        training[way], loading[way] = statistics.median(turns.cpu[way]), turns.worker_seconds(way)
        cells = [
            f"{batch / statistics.median(turns.wall[way]):.1f}",
            f"{1000 * training[way] / batch:.2f}",
            f"{1000 * loading[way] / batch:.2f}",
            f"{batch / (training[way] + loading[way]):.1f}",
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    wall, cpu = (ratio(seconds) for seconds in (turns.wall, turns.cpu))
    both = (training[PLAIN] + loading[PLAIN]) / (training[OURS] + loading[OURS])
    lines.append(
        f"| ratio, at least {TARGET} | {wall:.2f} | {cpu:.2f} | {loading[PLAIN] / loading[OURS]:.1f} | {both:.2f} |"
    )
    return "\n".join(lines) + "\n"


def ratio(seconds: dict[str, list[float]]) -> float:
    """Speedup of this package in the median pair of steps."""
    return statistics.median(plain / ours for ours, plain in zip(seconds[OURS], seconds[PLAIN], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of indexed shards of faces")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    with TemporaryDirectory() as scratch:
        faces = Path(scratch, "faces")
        faces.mkdir()
        unpack(options.data, faces)
        config = run_config(options, Path(scratch, "run"))
        text = report(options, take_turns(config, faces, options.workers), config.optim.global_batch)
    write_result(RESULTS, text)


if __name__ == "__main__":
    main()
