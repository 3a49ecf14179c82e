"""One worker's samples per second through the whole loader, compared with a bare loop and stock webdataset.

    python benchmarks/loader.py --data DIR

DIR has indexed shards of faces of 200 px, such as UTKFace's chips. All pipelines read the same bytes in the same order
and resize to the same size, with the transform of evaluation. The bare loop only decodes with simplejpeg and resizes;
webdataset decodes and resizes with PIL and torchvision. Each repetition runs every pipeline once, on the same CPU, in
changing order, and ratios are computed within a repetition. The table has medians, so other load on the machine has
little influence.

The same repetitions compare one worker with the default augmentation and with the transform of evaluation: from the 200
px of DIR to 112, and from copies enlarged to 448 px to 224.
"""

import argparse
import os
import random
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from timing import machine

from mivolo_lite.distributed.affinity import spread_over_cpus

spread_over_cpus()  # as train.py does, before torch is imported

import cv2  # noqa: E402
import simplejpeg  # noqa: E402
import torch  # noqa: E402
import webdataset as wds  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

from mivolo_lite.images.jpeg import decode  # noqa: E402
from mivolo_lite.images.letterbox import resize  # noqa: E402
from mivolo_lite.loading.dataset import ShardDataset, TrainingChanges  # noqa: E402
from mivolo_lite.loading.device import to_device  # noqa: E402
from mivolo_lite.loading.sampler import EvalSampler  # noqa: E402
from mivolo_lite.loading.transforms import AugmentConfig  # noqa: E402
from mivolo_lite.loading.worker_process import begin_worker  # noqa: E402
from mivolo_lite.loading.workers import PREFETCHED, BatchLoader  # noqa: E402
from mivolo_lite.packing.crops import JPEG_CHROMA, JPEG_QUALITY  # noqa: E402
from mivolo_lite.shards.index import ShardIndex  # noqa: E402
from mivolo_lite.shards.scan import index_shards  # noqa: E402
from mivolo_lite.shards.storage import open_shards  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "loader.md"
BARE, STOCK = "bare loop", "webdataset, PIL, torchvision"
OURS, OURS_WORKER, STOCK_WORKER = "this loader, no worker", "this loader, 1 worker", f"{STOCK}, 1 worker"
CONTENDERS = BARE, OURS, OURS_WORKER, STOCK, STOCK_WORKER
TARGETS = {OURS_WORKER: {BARE: 0.88, STOCK_WORKER: 2.0}}
AUGMENTED = ((448, 224), (200, 112))  # side of the stored and of the model's images in pixels
AUGMENTED_TARGET = 0.7
WARM_UP = PREFETCHED + 1  # batches before the clock starts, so that none is ready ahead of it


def bare_loop(index: ShardIndex, size: int, batch: int, samples: int) -> float:
    """Seconds for this number of samples, as with the other contenders."""
    columns = [index.columns[name].tolist() for name in ("shard", "face_offset", "face_size")]
    files = [os.open(index.shard_path(shard), os.O_RDONLY) for shard in range(len(index.shard_sizes))]
    members = list(zip(*columns, strict=True))[WARM_UP * batch :][:samples]
    start = time.perf_counter()
    for shard, offset, length in members:
        resize(simplejpeg.decode_jpeg(os.pread(files[shard], length, offset), colorspace="RGB"), size, size)
    return time.perf_counter() - start


def our_loader(
    index: ShardIndex, size: int, batch: int, samples: int, workers: int, changes: TrainingChanges | None = None
) -> float:
    sampler = EvalSampler(samples + WARM_UP * batch, batch)
    loader = BatchLoader(ShardDataset(index, ("face",), size, changes), sampler, workers)
    return seconds_after_warm_up(to_device(loader, torch.device("cpu")))


def enlarged(index: ShardIndex, side: int, samples: int, folder: Path) -> ShardIndex:
    """The first faces at another size, encoded as by packing."""
    shards = open_shards(index, 1)
    folder.mkdir()
    with wds.TarWriter(str(folder / "faces.tar"), encoder=False) as tar:
        for sample in range(samples):
            face = cv2.resize(decode(shards.read("face", sample)), (side, side), interpolation=cv2.INTER_CUBIC)
            data = simplejpeg.encode_jpeg(face, JPEG_QUALITY, colorsubsampling=JPEG_CHROMA)
            tar.write({"__key__": f"{sample:06d}", "face.jpg": data, "json": b"{}"})
    return index_shards(folder)


def stock_pipeline(index: ShardIndex, size: int, batch: int, samples: int, workers: int) -> float:
    transform = v2.Compose([v2.Resize((size, size)), v2.PILToTensor()])
    urls = [str(index.shard_path(shard)) for shard in range(len(index.shard_sizes))]
    faces = wds.WebDataset(urls, shardshuffle=False).decode("pil").to_tuple("face.jpg", "json")
    dataset = faces.map_tuple(transform, as_it_is).batched(batch)
    loader = DataLoader(dataset, batch_size=None, num_workers=workers, worker_init_fn=begin_worker)
    return seconds_after_warm_up(islice(loader, WARM_UP + samples // batch))


def as_it_is(labels: dict) -> dict:
    return labels


def seconds_after_warm_up(batches) -> float:
    batches = iter(batches)
    for _ in range(WARM_UP):
        next(batches)
    start = time.perf_counter()
    for _ in batches:
        pass
    return time.perf_counter() - start


def where_a_worker_runs(contender: Callable[..., float], *arguments) -> float:
    """Run a contender without workers in a separate process on the CPU of a worker."""
    with ProcessPoolExecutor(1, get_context("fork"), begin_worker, (0,)) as pool:
        return pool.submit(contender, *arguments).result()


def measure(options: argparse.Namespace, scratch: Path) -> dict[str, list[float]]:
    """Seconds by contender, one for each repetition."""
    index = ShardIndex.load(options.data)
    arguments = (index, options.size, options.batch, options.samples)
    needed = options.samples + WARM_UP * options.batch
    if needed > len(index):
        raise SystemExit(f"--samples {options.samples}: {options.data} holds only {len(index)}")
    contenders = {
        BARE: partial(where_a_worker_runs, bare_loop, *arguments),
        OURS: partial(where_a_worker_runs, our_loader, *arguments, 0),
        OURS_WORKER: partial(our_loader, *arguments, 1),
        STOCK: partial(where_a_worker_runs, stock_pipeline, *arguments, 0),
        STOCK_WORKER: partial(stock_pipeline, *arguments, 1),
    }
    for stored, size in AUGMENTED:
        faces = index if stored == 200 else enlarged(index, stored, needed, scratch / str(stored))
        for changes in (None, TrainingChanges(AugmentConfig(), {}, seed=0)):
            name = augmented_name(stored, size, changes is not None)
            contenders[name] = partial(our_loader, faces, size, options.batch, options.samples, 1, changes)
    seconds = {name: [] for name in contenders}
    for _ in range(options.repeats):
        for name in random.sample(list(contenders), len(contenders)):
            seconds[name].append(contenders[name]())
    return seconds


def augmented_name(stored: int, size: int, augmented: bool) -> str:
    return f"{stored} to {size} px, {'default augmentation' if augmented else 'transform of evaluation'}"


def ratio(seconds: dict[str, list[float]], ours: str, other: str) -> float:
    return statistics.median(b / a for a, b in zip(seconds[ours], seconds[other], strict=True))


def report(options: argparse.Namespace, seconds: dict[str, list[float]]) -> str:
    """The tables as markdown."""
    rate = {name: options.samples / statistics.median(times) for name, times in seconds.items()}
    lines = [
        "# One worker's samples per second",
        "",
        f"`python benchmarks/loader.py --samples {options.samples} --batch {options.batch} --size {options.size} "
        f"--repeats {options.repeats}`",
        f"on {machine()}; medians over {options.repeats} interleaved repetitions.",
        "",
        "| | samples/s | relative to the bare loop |",
        "| --- | ---: | ---: |",
    ]
    lines += [f"| {name} | {rate[name]:.0f} | {ratio(seconds, name, BARE):.2f} |" for name in CONTENDERS]
    lines += ["", "| | ratio | at least |", "| --- | ---: | ---: |"]
    for ours, others in TARGETS.items():
        lines += [
            f"| {ours} : {other} | {ratio(seconds, ours, other):.2f} | {at_least} |"
            for other, at_least in others.items()
        ]
    lines += [
        "",
        "| this loader, 1 worker | transform of evaluation | default augmentation | ratio | at least |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for stored, size in AUGMENTED:
        plain, augmented = (augmented_name(stored, size, changes) for changes in (False, True))
        lines.append(
            f"| {stored} to {size} px | {rate[plain]:.0f} | {rate[augmented]:.0f} "
            f"| {ratio(seconds, augmented, plain):.2f} | {AUGMENTED_TARGET} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of indexed shards of faces")
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=128, help="side of the model's images in pixels")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)  # no model's threads compete for the worker's CPU
    with TemporaryDirectory() as scratch:
        text = report(options, measure(options, Path(scratch)))
    print(text)
    _, heading, notes = (RESULTS.read_text() if RESULTS.exists() else "").partition("\n## ")
    RESULTS.write_text(text + heading + notes)  # keeps the notes written by hand below


if __name__ == "__main__":
    main()
