"""Tiny shards of noise, with every kind of label."""

from pathlib import Path

import numpy as np
import simplejpeg
import webdataset as wds

from mivolo_lite.data.index import ShardIndex
from mivolo_lite.data.sample import Labels, Sample
from mivolo_lite.data.scan import index_shards


def noise_jpeg(number: int, side: int = 24) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return simplejpeg.encode_jpeg(pixels, quality=90)


def sample(number: int) -> Sample:
    """A sample whose crops and labels follow from its number: face, body or both; known, ranged and unknown ages."""
    kind = number % 3
    age = [(float(number % 90),) * 2, (20.0, 29.0), None][number % 5 % 3]
    labels = Labels(age, ["M", "F", None][number % 4 % 3], ["x", "y"][number % 2], {"number": number})
    face = noise_jpeg(number) if kind != 1 else None
    body = noise_jpeg(number + 100_000, 40) if kind != 0 else None
    return Sample(f"sample{number:05d}", face, body, labels)


def write_shard(path: Path, samples: list[Sample]) -> None:
    with wds.TarWriter(str(path), encoder=False, mtime=0) as tar:
        for one in samples:
            tar.write({"__key__": one.key} | one.members())


def make_shards(folder: Path, sizes: list[int]) -> ShardIndex:
    """Indexed shards of the given sizes, whose samples are numbered through."""
    folder.mkdir(parents=True, exist_ok=True)
    first = 0
    for shard, size in enumerate(sizes):
        write_shard(folder / f"part-{shard:04d}.tar", [sample(number) for number in range(first, first + size)])
        first += size
    return index_shards(folder)
