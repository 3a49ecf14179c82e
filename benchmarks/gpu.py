"""Training on one GPU: does the loader keep up, what does compiling bring, how much of the card is used?

    mivolo-lite pack people --count 4352 --split train=0.94,val=0.06 --out DIR
    python benchmarks/gpu.py --data DIR [--only dual_resnet50_vit] [--ways resident shards] [--workers 15]

Each of ``CONFIGS`` is trained by the ordinary trainer, from its own file with random weights: from the shards of faces
and bodies in DIR, on four batches of these that lie on the GPU already (``resident``), which no loader can beat, and
both with ``torch.compile``. ``plain timm`` is a bare loop over the same timm backbones on the resident batches, without
anything of this package. Samples per second are the median over intervals of fifty steps without the first two: the
batches that the loader had ready at the start are used up by then. What was measured before, on the same card and
with the same options, is not measured again, and the table holds it.
"""

import argparse
import gc
import json
import shutil
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path

import timm
import torch
from commands import REPOSITORY
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from mivolo_lite.config import read_run_config
from mivolo_lite.distributed.batch_plan import BatchPlan
from mivolo_lite.images.packed import Images
from mivolo_lite.loading.batch import Batch
from mivolo_lite.loading.readers import READERS, IndexReader
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.training.loop import Trainer
from mivolo_lite.training.run_config import RunConfig

CONFIGS = {"dual_resnet50_vit": ("resnet50", "vit_small_patch16_224"), "mivolo_d1": ("volo_d1_224",)}
"""The configurations, and the timm backbones of the plain loop: of the face, and of the body where it has its own."""
WAYS = ("resident", "shards", "plain timm", "resident, compiled", "shards, compiled")
INTERVAL, INTERVALS, WARM_UP = 50, 6, 2
RESIDENT = 4
"""Batches that lie on the GPU."""
RESULTS = REPOSITORY / "benchmarks" / "results" / "gpu.md"


@dataclass(frozen=True)
class Measured:
    """One way to train one configuration: its batch, samples per second, peak memory and operations per sample."""

    batch: int
    speed: float
    peak_gib: float
    flops: float | None = None


class ResidentReader(IndexReader):
    """Repeats the first batches, which it keeps on the GPU."""

    def batches(
        self, inputs: Sequence[str], plan: BatchPlan, rank: int, samples_seen: int, steps: int
    ) -> Iterable[Batch]:
        return cycle([batch.to("cuda") for batch in super().batches(inputs, plan, rank, samples_seen, RESIDENT)])


def measure(name: str, way: str, options: argparse.Namespace) -> Measured:
    """Train in one way, after forgetting all about those before."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    config = run_config(name, way, options)
    trainer = None if way == "plain timm" else Trainer(config)
    speed = plain_timm(name, config) if trainer is None else by_trainer(trainer)
    peak = torch.cuda.max_memory_allocated() / 2**30
    flops = None if trainer is None or config.train.compile else operations(trainer)
    return Measured(config.optim.global_batch, speed, peak, flops)


def run_config(name: str, way: str, options: argparse.Namespace) -> RunConfig:
    """The configuration as its file has it, but for its length, its data and its random weights."""
    run = options.work / "run"
    shutil.rmtree(run, ignore_errors=True)
    words = {
        "config": REPOSITORY / "configs" / f"{name}.yaml",
        "run": run,
        "model.pretrained": "false",
        "data.train": options.data / "train",
        "data.val": options.data / "val",
        "data.workers": options.workers,
        "train.log_every": INTERVAL,
        "train.eval_every": 1e6,
        "train.compile": "compiled" in way,
    }
    if options.batch:
        words["optim.global_batch"] = options.batch
    config = read_run_config([str(word) for key, value in words.items() for word in (f"--{key}", value)])
    samples = INTERVAL * INTERVALS * config.optim.global_batch
    config.optim.epochs = samples / len(ShardIndex.load(options.data / "train"))
    if not way.startswith("shards"):
        config.data.reader = "resident"
    return config


def by_trainer(trainer: Trainer) -> float:
    """Samples per second of this package's training, from its log."""
    trainer.train()
    lines = [json.loads(line) for line in trainer.folder.metrics.read_text().splitlines()]
    speeds = [line["samples_per_second"] for line in lines if line["kind"] == "train"]
    return statistics.median(speeds[WARM_UP:])


def operations(trainer: Trainer) -> float:
    """Floating-point operations of one sample in one step, as torch counts those of products and convolutions."""
    batch = next(resident_batches(trainer.config))
    trainer.engine.model.train()
    with FlopCounterMode(display=False) as counter:
        trainer.step([batch], trainer.state.step)
    return counter.get_total_flops() / len(batch)


class PlainTimm(nn.Module):
    """Backbones beside each other, their features joined by one linear layer: ages as classes, and gender."""

    def __init__(self, names: Sequence[str], drop_path_rate: float):
        super().__init__()
        self.backbones = nn.ModuleList(
            timm.create_model(name, num_classes=0, drop_path_rate=drop_path_rate) for name in names
        )
        self.head = nn.Linear(sum(backbone.num_features for backbone in self.backbones), 101 + 2)

    def forward(self, *images: Tensor) -> tuple[Tensor, Tensor]:
        features = [
            backbone(image.float() / 127.5 - 1) for backbone, image in zip(self.backbones, images, strict=False)
        ]
        return self.head(torch.cat(features, dim=1)).split([101, 2], dim=1)


def plain_timm(name: str, config: RunConfig) -> float:
    """Samples per second of the loop that one writes oneself."""
    model = PlainTimm(CONFIGS[name], config.model.drop_path_rate).cuda().to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.optim.lr, weight_decay=config.optim.weight_decay)
    batches = resident_batches(config)
    speeds = []
    for _ in range(INTERVALS):
        start = time.perf_counter()
        for _ in range(INTERVAL):
            batch = next(batches)
            with torch.autocast("cuda", torch.bfloat16):
                age, gender = model(*(filled(images, len(batch)) for images in (batch.face, batch.body)))
            loss = F.cross_entropy(age.float(), batch.age.lo.long().clamp(0, 100))
            (loss + F.cross_entropy(gender.float(), batch.gender)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
        torch.cuda.synchronize()
        speeds.append(INTERVAL * len(batch) / (time.perf_counter() - start))
    return statistics.median(speeds[WARM_UP:])


def filled(images: Images, batch: int) -> Tensor:
    """(B, 3, S, S): as many images as samples, some of them again; a plain loop knows no missing ones."""
    return images.pixels[torch.arange(batch, device=images.pixels.device) % len(images.pixels)]


def resident_batches(config: RunConfig) -> Iterator[Batch]:
    """Those of the resident ways, for whoever has no trainer to take them from."""
    plan = BatchPlan.resolve(config.optim.global_batch, config.optim.micro_batch, 1)
    return iter(ResidentReader(config.data, 0).batches(("face", "body"), plan, 0, 0, RESIDENT))


def matmul_rate() -> float:
    """Floating-point operations a second of the card's own product of two 8192 x 8192 matrices in bf16."""
    side, rounds = 8192, 20
    left, right = (torch.randn(side, side, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for number in range(2 * rounds):
        if number == rounds:
            torch.cuda.synchronize()
            start = time.perf_counter()
        left @ right
    torch.cuda.synchronize()
    return rounds * 2 * side**3 / (time.perf_counter() - start)


def report(options: argparse.Namespace, rate: float, found: dict[tuple[str, str], Measured]) -> str:
    """The table as markdown."""
    lines = [
        "# Training on one GPU, bf16",
        "",
        f"`python benchmarks/gpu.py --workers {options.workers}` on {torch.cuda.get_device_name()}, torch "
        f"{torch.__version__}, {options.workers} loader processes; a product of 8192 x 8192 matrices in bf16 runs at "
        f"{rate / 1e12:.0f} TFLOP/s there.",
        "",
        "`resident`: the same steps on batches that lie on the GPU already. `plain timm`: a bare loop over "
        + ", ".join(f"{' and '.join(backbones)} for {name}" for name, backbones in CONFIGS.items())
        + " on those, without averaged weights, enhancer, a second stem or missing images. Operations are those of "
        "products and convolutions, forward and back.",
        "",
        "| configuration | batch | way | samples/s | of resident | peak GiB | TFLOP/s | of the product's |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for (name, way), own in found.items():
        resident = found.get((name, "resident, compiled" if "compiled" in way else "resident"))
        share = f"{own.speed / resident.speed:.2f}" if resident else ""
        flops = next((each.flops for (other, _), each in found.items() if other == name and each.flops), None)
        used = own.speed * flops if flops and way != "plain timm" else None
        rates = [f"{used / 1e12:.0f}", f"{used / rate:.0%}"] if used else ["", ""]
        cells = [name, str(own.batch), way, f"{own.speed:.0f}", share, f"{own.peak_gib:.1f}", *rates]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="packed faces and bodies, with train/ and val/")
    parser.add_argument("--only", nargs="+", choices=CONFIGS, default=tuple(CONFIGS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--workers", type=int, default=15)
    parser.add_argument("--batch", type=int, help="instead of the configuration's own")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs" / "gpu", help="what was measured")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks/gpu.py: no GPU here")
    READERS["resident"] = ResidentReader
    options.work.mkdir(parents=True, exist_ok=True)
    files = {(name, way): options.work / f"{name}, {way}.json" for name in CONFIGS for way in WAYS}
    setting = {"card": torch.cuda.get_device_name(), "torch": torch.__version__} | {
        name: getattr(options, name) for name in ("workers", "batch")
    }
    found = {}
    for (name, way), file in files.items():
        known = json.loads(file.read_text()) if file.exists() else {}
        if known.get("setting") != setting and name in options.only and way in options.ways:
            known = {"setting": setting, "measured": asdict(measure(name, way, options))}
            file.write_text(json.dumps(known))
        if known.get("setting") == setting:
            found[name, way] = Measured(**known["measured"])
    text = report(options, matmul_rate(), found)
    print(text)
    RESULTS.write_text(text)


if __name__ == "__main__":
    main()
