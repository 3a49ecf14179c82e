"""Training and inference on one GPU: the speed of the loader, the gain of compilation, and the utilisation of the GPU.

    mivolo-lite pack people --count 8192 --split train=0.97,val=0.03 --out DIR
    python benchmarks/gpu.py --data DIR --minutes 8 [--workers 15]
    python benchmarks/gpu.py --data DIR --dry-run

The ordinary trainer trains each of ``CONFIGS`` with random weights: first on batches that are on the GPU already
(``resident``), an upper bound for any loader, then from the shards of faces and bodies in DIR (``from shards``).
``plain timm`` is a bare loop over the same timm backbones on the resident batches, without this package. All three run
eagerly and with ``torch.compile``. Inference of MiVOLO in bf16 is compared with a straightforward implementation
(``PlainMivolo``).

Parts are measured in the order of ``PARTS``, each in a separate process, until the minutes are over; the table names
the others. It is written after every part. ``--dry-run`` only tests the script, with tiny models, a few steps, and
without a GPU.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import cycle, islice, product
from pathlib import Path

import timm
import torch
from commands import REPOSITORY
from inference import PlainMivolo
from timing import interleaved
from torch import Tensor, nn
from torch.nn import functional as F

from mivolo_lite.config import read_run_config
from mivolo_lite.distributed.batch_plan import BatchPlan
from mivolo_lite.images.packed import Images
from mivolo_lite.loading.batch import Batch
from mivolo_lite.loading.device import to_device
from mivolo_lite.loading.readers import READERS, IndexReader
from mivolo_lite.models import MODELS
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.training.flops import count_flops, peak_flops
from mivolo_lite.training.loop import Trainer
from mivolo_lite.training.run_config import RunConfig

CONFIGS = {"dual_resnet50_vit": ("resnet50", "vit_small_patch16_224"), "mivolo_d1": ("volo_d1_224",)}
"""The configurations, and the timm backbones of the plain loop: for the face, and for the body if it has its own."""
OURS, PLAIN, INFERENCE = "this package", "plain timm", "inference"
PARTS = [
    *product(CONFIGS, (OURS, PLAIN), (False,)),
    ("mivolo_d1", INFERENCE, False),
    *product(CONFIGS, (OURS, PLAIN), (True,)),
]
"""What is measured: the configuration, what trains it, and whether it is compiled."""
RESIDENT = 4
"""Batches that stay on the GPU."""
RESULTS = REPOSITORY / "benchmarks" / "results" / "gpu.md"
DRY_CONFIGS = {
    "dual_resnet50_vit": {"model.face": "test_resnet", "model.body": "test_vit", "data.image_size": 160},
    "mivolo_d1": {"model": "mivolo_d1_112", "model.pretrained": "false", "data.image_size": 112},
}
DRY_BACKBONES = {"dual_resnet50_vit": ("test_resnet", "test_vit"), "mivolo_d1": ("test_resnet",)}
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Windows:
    """Samples a second of spans of steps, each after skipped steps.

    Args:
        spans: by name, in order, the number of steps to skip and to count.
    """

    def __init__(self, spans: dict[str, tuple[int, int]]):
        self.marks, self.seconds, self.done, end = {}, {}, 0, 0
        for name, (skipped, counted) in spans.items():
            self.marks[end + skipped], self.marks[end + skipped + counted] = (name, True), (name, False)
            end += skipped + counted
        self.steps, self.counted = end, {name: counted for name, (_, counted) in spans.items()}

    def step(self) -> None:
        self.done += 1
        if self.done in self.marks:
            synchronise()
            name, begins = self.marks[self.done]
            self.seconds[name] = time.perf_counter() - (0.0 if begins else self.seconds[name])

    def speeds(self, batch: int) -> dict[str, float]:
        return {name: self.counted[name] * batch / seconds for name, seconds in self.seconds.items()}


class BothReader(IndexReader):
    """Repeats its first batches, which it keeps on the device, and then reads on from the shards."""

    resident_steps = 0

    def batches(
        self, inputs: Sequence[str], plan: BatchPlan, rank: int, samples_seen: int, steps: int
    ) -> Iterable[Batch]:
        loader = super().batches(inputs, plan, rank, samples_seen, steps)
        resident = list(islice(to_device(loader, DEVICE, held=RESIDENT), RESIDENT))
        yield from islice(cycle(resident), self.resident_steps)
        yield from to_device(loader, DEVICE)


def by_trainer(config: RunConfig, options: argparse.Namespace) -> dict[str, float]:
    """This package's training: samples a second on resident batches and from shards, and FLOPs of a sample."""
    windows = Windows({"resident": options.resident, "from shards": options.shards})
    set_length(config, windows.steps)
    BothReader.resident_steps, READERS["both"] = sum(options.resident), BothReader
    config.data.reader = "both"
    trainer = Trainer(config)
    trainer.logger.step = windows.step
    trainer._evaluate = lambda: True
    flops = trainer.flops or count_flops(trainer.estimator, peak=1.0)
    trainer.train()
    return windows.speeds(config.optim.global_batch) | {"flops": sum(map(flops.of, sampled(config))) / len_of(config)}


def sampled(config: RunConfig) -> list[Batch]:
    """Some batches as training reads them, on the host."""
    return list(islice(iter(loader_of(config)), RESIDENT))


def len_of(config: RunConfig) -> int:
    return RESIDENT * config.optim.global_batch


def loader_of(config: RunConfig) -> Iterable[Batch]:
    plan = BatchPlan.resolve(config.optim.global_batch, config.optim.micro_batch, 1)
    return IndexReader(config.data, 0).batches(("face", "body"), plan, 0, 0, RESIDENT)


class PlainTimm(nn.Module):
    """Backbones with concatenated features and one linear layer: ages as classes, and gender."""

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


def plain_timm(config: RunConfig, names: Sequence[str], options: argparse.Namespace) -> dict[str, float]:
    """Samples a second of a plain loop on resident batches."""
    windows = Windows({"resident": options.resident})
    model = PlainTimm(names, config.model.drop_path_rate).to(DEVICE, memory_format=torch.channels_last).train()
    forward: Callable = torch.compile(model) if config.train.compile else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.optim.lr, weight_decay=config.optim.weight_decay)
    batches = cycle([batch.to(DEVICE) for batch in sampled(config)])
    for batch in islice(batches, windows.steps):
        with torch.autocast(DEVICE.type, torch.bfloat16):
            age, gender = forward(*(filled(images, len(batch)) for images in (batch.face, batch.body)))
        loss = F.cross_entropy(age.float(), batch.age.lo.long().clamp(0, 100))
        (loss + F.cross_entropy(gender.float(), batch.gender)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        windows.step()
    return windows.speeds(config.optim.global_batch)


def filled(images: Images, batch: int) -> Tensor:
    """(B, 3, S, S): one image for each sample, some repeated, since a plain loop has no missing images."""
    return images.pixels[torch.arange(batch, device=images.pixels.device) % len(images.pixels)]


@torch.inference_mode()
def inference(config: RunConfig, options: argparse.Namespace) -> dict[str, float]:
    """Samples a second in bf16 of the model, as evaluation runs it, and of the straightforward implementation."""
    name, side, batch = config.model.name, config.data.image_size, options.inference_batch
    torch.manual_seed(0)
    model = MODELS[name](MODELS[name].Config(), side).eval().to(DEVICE)
    plain, fast = PlainMivolo(model).eval(), model if DEVICE.type == "cuda" else model.for_inference()
    face, body = (torch.randn(batch, 3, side, side, device=DEVICE) for _ in range(2))

    def timed(forward: Callable, *arguments) -> None:
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=DEVICE.type == "cuda"):
            forward(*arguments)
        synchronise()

    functions = {"ours": partial(timed, fast, Images.of(face), Images.of(body), batch)}
    functions["plainly written"] = partial(timed, plain, face, body)
    seconds = interleaved(functions, options.inference_rounds)
    return {name: batch / statistics.median(times) for name, times in seconds.items()}


def run_config(name: str, compiled: bool, options: argparse.Namespace) -> RunConfig:
    """The configuration of its file, with another length, other data and random weights."""
    run = options.work / "run"
    shutil.rmtree(run, ignore_errors=True)
    words = {
        "config": REPOSITORY / "configs" / f"{name}.yaml",
        "run": run,
        "model.pretrained": "false",
        "data.train": options.data / "train",
        "data.val": options.data / "val",
        "data.workers": options.workers,
        "train.log_every": 50,
        "train.eval_every": 1e6,
        "train.save_every": 10**6,
        "train.trackers": "[]",
        "train.compile": compiled,
    } | (DRY_CONFIGS[name] if options.dry_run else {})
    if options.batch:
        words["optim.global_batch"] = options.batch
    return read_run_config([str(word) for key, value in words.items() for word in (f"--{key}", value)])


def set_length(config: RunConfig, steps: int) -> None:
    config.optim.epochs = steps * config.optim.global_batch / len(ShardIndex.load(config.data.train))


def measure(name: str, what: str, compiled: bool, options: argparse.Namespace) -> dict[str, float]:
    """One part, in this process."""
    config = run_config(name, compiled, options)
    if what == INFERENCE:
        found = inference(config, options)
    elif what == PLAIN:
        found = plain_timm(config, (DRY_BACKBONES if options.dry_run else CONFIGS)[name], options)
    else:
        found = by_trainer(config, options)
    memory = torch.cuda.max_memory_allocated() / 2**30 if DEVICE.type == "cuda" else 0.0
    return found | {"batch": config.optim.global_batch, "peak_gib": memory}


def synchronise() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def matmul_rate(side: int) -> float:
    """Floating-point operations a second of the device in the multiplication of two square matrices in bf16."""
    rounds = 20
    left, right = (torch.randn(side, side, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    for number in range(2 * rounds):
        if number == rounds:
            synchronise()
            start = time.perf_counter()
        left @ right
    synchronise()
    return rounds * 2 * side**3 / (time.perf_counter() - start)


def report(options: argparse.Namespace, rate: float, found: dict[tuple, dict[str, float]], missing: list) -> str:
    """The tables as markdown."""
    card = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "a CPU (dry run: no number means anything)"
    peak = peak_flops(card, "bf16")
    lines = [
        "# Training on one GPU, bf16",
        "",
        f"`python benchmarks/gpu.py --minutes {options.minutes:g} --workers {options.workers}` on {card}, torch "
        f"{torch.__version__}. Multiplication of large matrices in bf16 runs at {rate / 1e12:.0f} TFLOP/s on it"
        + (f" (data sheet: {peak / 1e12:.0f})." if peak else "."),
        "",
        "* `resident`: the same steps on batches that are already on the GPU.",
        "* `plain timm`: a bare loop on such batches over "
        + ", and ".join(f"{' and '.join(backbones)} for {name}" for name, backbones in CONFIGS.items())
        + ". It has no EMA, enhancer, second stem or missing images.",
        "* TFLOP/s: operations of matrix multiplications and convolutions, forward and backward.",
        "",
        "| configuration | batch | trained by | batches | samples/s | of resident | of plain timm | peak GiB "
        "| TFLOP/s | of matmul |",
        "| --- | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for (name, what, compiled), values in found.items():
        if what == INFERENCE:
            continue
        plain = found.get((name, PLAIN, compiled), {}).get("resident")
        for way in ("resident", "from shards"):
            if way in values:
                lines.append(row(name, what, compiled, way, values, plain, rate))
    for (name, what, _), values in found.items():
        if what == INFERENCE:
            ours, plainly = values["ours"], values["plainly written"]
            lines += [
                "",
                f"Inference of {name} in bf16, batches of {options.inference_batch}, face and body: {ours:.0f} "
                f"samples/s, straightforward implementation {plainly:.0f}, speedup {ours / plainly:.2f}.",
            ]
    if missing:
        names = "; ".join(f"{name}, {what}{', compiled' * compiled}" for name, what, compiled in missing)
        lines += ["", f"Not measured: {names}."]
    return "\n".join(lines) + "\n"


def row(name: str, what: str, compiled: bool, way: str, values: dict, plain: float | None, rate: float) -> str:
    speed = values[way]
    used = speed * values["flops"] if "flops" in values else None
    cells = [
        name,
        f"{values['batch']}",
        f"{what}, compiled" if compiled else what,
        way,
        f"{speed:.0f}",
        f"{speed / values['resident']:.2f}",
        f"{speed / plain:.2f}" if plain else "",
        f"{values['peak_gib']:.1f}",
        f"{used / 1e12:.0f}" if used else "",
        f"{used / rate:.0%}" if used else "",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="packed faces and bodies, with train/ and val/")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--workers", type=int, default=15)
    parser.add_argument("--batch", type=int, help="samples of a batch, by default the configuration's")
    parser.add_argument("--resident", type=int, nargs=2, default=(15, 40), help="steps to skip and to count")
    parser.add_argument(
        "--shards", type=int, nargs=2, default=(65, 50), help="the same; skip those that the loader has ready"
    )
    parser.add_argument("--inference-batch", type=int, default=128)
    parser.add_argument("--inference-rounds", type=int, default=20)
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs" / "gpu")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--dry-run", action="store_true", help="tiny models and few steps, also without a GPU")
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if DEVICE.type == "cpu" and not options.dry_run:
        raise SystemExit("benchmarks/gpu.py: no GPU here; --dry-run shows that it runs")
    if options.dry_run:
        options.batch, options.workers, options.resident, options.shards = 4, 1, (1, 1), (1, 1)
        options.inference_batch = options.inference_rounds = 1
    options.work.mkdir(parents=True, exist_ok=True)
    if options.part is not None:
        print(json.dumps(measure(*PARTS[options.part], options)))
        return
    measure_all(options)


def measure_all(options: argparse.Namespace) -> None:
    """Measure every part in turn while there is time; one that fails or takes too long is left out."""
    end = time.monotonic() + 60 * options.minutes
    rate = matmul_rate(256 if options.dry_run else 8192)
    found: dict[tuple, dict[str, float]] = {}
    for number, part in enumerate(PARTS):
        words = [sys.executable, __file__, *sys.argv[1:], "--part", str(number)]
        begun = time.monotonic()
        try:
            done = subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=max(1, end - begun), check=True)
            found[part] = json.loads(done.stdout.splitlines()[-1])
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
            print(f"{part}: {error}", flush=True)
        print(f"{part}: {time.monotonic() - begun:.0f} s", flush=True)
        text = report(options, rate, found, [other for other in PARTS if other not in found])
        options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
