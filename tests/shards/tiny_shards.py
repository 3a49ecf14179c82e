"""Tiny shards of noise, with every kind of label."""

from pathlib import Path

import numpy as np
import simplejpeg
import webdataset as wds

from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.members import check_of
from mivolo_lite.shards.sample import Labels, Sample
from mivolo_lite.shards.scan import index_shards


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


def overwrite(index: ShardIndex, number: int, member: str, data: bytes, skip: int = 0) -> None:
    """Put bytes over those of a sample's ``face``, ``body`` or ``labels``, in a shard that stays as long as it is."""
    with open(index.shard_path(int(index.columns["shard"][number])), "r+b") as file:
        file.seek(int(index.columns[f"{member}_offset"][number]) + skip)
        file.write(data)


def damage(index: ShardIndex, number: int, member: str) -> ShardIndex:
    """The index of shards in which the pixels of an image end too early; its header and its end are sound."""
    overwrite(index, number, member, b"\xff\xd9", skip=int(index.columns[f"{member}_size"][number]) * 7 // 8)
    return index_shards(index.folder)


def of_before_the_crcs(index: ShardIndex, checks: bool = False) -> ShardIndex:
    """An index as older versions wrote it: without checks, or with one over both images of a sample."""
    later = [name for name in index.columns if name.endswith("_crc") or name.startswith("labels_")]
    columns = {name: column for name, column in index.columns.items() if name not in later}
    if checks:
        shards = [index.shard_path(shard).read_bytes() for shard in range(len(index.shard_sizes))]

        def image(number: int, name: str) -> bytes:
            offset, size = columns[f"{name}_offset"][number], columns[f"{name}_size"][number]
            return shards[columns["shard"][number]][offset : offset + size]

        values = [check_of(image(number, "face"), image(number, "body")) for number in range(len(index))]
        columns["check"] = np.array(values, dtype=np.uint64)
    return ShardIndex(index.folder, index.info, columns)
