"""A data set of pictures becomes folders of shards, one a split, that appear whole or not at all.

Pictures are read once, in parallel, into a spool; the samples are then put in order and written out as tars. The order
comes from digests of the pictures, so neither the number of workers nor the moment can change a byte.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import cv2
import webdataset as wds
from tqdm import tqdm

from mivolo_lite.data.index import REJECTED_FILE, ShardIndex, check_reject_rate, index_shards, write_rejected
from mivolo_lite.data.sample import Labels, Sample
from mivolo_lite.data.sources.source import Rejected, Source
from mivolo_lite.errors import UserError

_PICTURES_PER_TASK = 64
_SHARE = re.compile(r"(?P<name>[A-Za-z0-9_-]+)=(?P<share>[0-9]*\.?[0-9]+)")  # the name becomes a folder


class Stretch(NamedTuple):
    """Bytes of a spool file."""

    file: str
    offset: int
    size: int


@dataclass(frozen=True)
class Spooled:
    """A sample whose pictures wait in the spool.

    Attributes:
        rank: 8 bytes, decides the split and the place in it; equal for all people of a picture and its duplicates.
    """

    key: str
    rank: bytes
    face: Stretch | None
    body: Stretch | None
    labels: Labels


@dataclass(frozen=True)
class Packed:
    """What packing gave: the index of every split, the pictures it could not use, each with its reason, and how many
    samples it left out because it was told to."""

    splits: dict[str, ShardIndex]
    rejected: list[dict]
    excluded: int


def pack(
    source: Source,
    out: Path | str,
    split: dict[str, float],
    samples_per_shard: int = 1000,
    seed: int = 0,
    workers: int = 1,
    max_reject_rate: float = 0.01,
    exclude: Collection[str] = (),
) -> Packed:
    """Write ``out/<split>/<split>-000000.tar ...`` with index and ``dataset.json``, and ``out/rejected.jsonl``.

    Args:
        source: the data set.
        out: must not exist yet; appears by a rename when everything in it is complete.
        split: share of the pictures by split name; the shares add up to 1.
        samples_per_shard: most samples of one tar.
        seed: another seed splits and mixes otherwise.
        workers: processes.
        max_reject_rate: largest share of pictures that may be unusable.
        exclude: samples to leave out, by their key or by the name of their picture.

    Raises:
        UserError: ``out`` exists, the shares do not add up, a split stays empty, or too many pictures are rejected.
    """
    out = Path(out)
    _check(out, split, samples_per_shard)
    items = source.items()
    with _appearing_whole(out) as partial:
        spool = partial / "spool"
        spool.mkdir()
        with ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(source, spool, seed)) as pool:
            spooled, rejected = _read_pictures(pool, items)
            check_reject_rate(rejected, len(items) - len(rejected), max_reject_rate, out)
            groups = sorted({sample.labels.group for sample in spooled if sample.labels.group is not None})
            kept = _without(_name_apart(spooled), exclude)
            by_split = _deal_out(kept, split)
            _write_shards(pool, partial, by_split, samples_per_shard)
        shutil.rmtree(spool)
        for name in by_split:
            index_shards(partial / name, source.crop_policy, groups, workers=workers)
        write_rejected(partial / REJECTED_FILE, rejected)
    return Packed({name: ShardIndex.load(out / name) for name in by_split}, rejected, len(spooled) - len(kept))


def parse_split(text: str) -> dict[str, float]:
    """``"train=0.9,val=0.1"`` as shares by name. Raises UserError where it cannot be read."""
    shares = {}
    for part in text.split(","):
        match = _SHARE.fullmatch(part.strip())
        if match is None or match["name"] in shares:
            raise UserError(f"--split {text!r}: write it as train=0.9,val=0.1")
        shares[match["name"]] = float(match["share"])
    return shares


def _check(out: Path, split: dict[str, float], samples_per_shard: int) -> None:
    if out.exists():
        raise UserError(f"--out {out}: already exists; remove it or choose another folder")
    if abs(sum(split.values()) - 1) > 1e-9 or min(split.values()) <= 0:
        raise UserError(f"--split: the shares {', '.join(map(str, split.values()))} must be positive and add up to 1")
    if samples_per_shard < 1:
        raise UserError(f"--samples-per-shard {samples_per_shard}: must be at least 1")


@contextmanager
def _appearing_whole(out: Path) -> Iterator[Path]:
    """A folder to fill, which then becomes ``out`` by a rename. Where that fails nothing is left of it."""
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # what a killed run left
    try:
        partial.mkdir(parents=True)
        yield partial
        os.rename(partial, out)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _read_pictures(pool: ProcessPoolExecutor, items: Sequence[str]) -> tuple[list[Spooled], list[dict]]:
    tasks = [items[first : first + _PICTURES_PER_TASK] for first in range(0, len(items), _PICTURES_PER_TASK)]
    spooled, rejected = [], []
    with tqdm(total=len(items), desc="pictures", unit="", disable=None) as bar:
        for task, (kept, refused) in zip(tasks, pool.map(_spool, range(len(tasks)), tasks), strict=True):
            spooled += kept
            rejected += refused
            bar.update(len(task))
    return spooled, rejected


class _Worker:
    """What every worker process holds."""

    source: Source
    spool: Path
    seed: int


def _start_worker(source: Source, spool: Path, seed: int) -> None:
    _Worker.source, _Worker.spool, _Worker.seed = source, spool, seed
    cv2.setNumThreads(1)


def _spool(number: int, items: Sequence[str]) -> tuple[list[Spooled], list[dict]]:
    """Read a few pictures and append their crops to a spool file."""
    spooled, rejected = [], []
    path = _Worker.spool / f"{number:08d}"
    with open(path, "wb") as file:
        for item in items:
            try:
                picture = _Worker.source.read(item)
            except Rejected as reason:
                rejected.append({"picture": item, "reason": str(reason)})
                continue
            rank = _rank(picture.identity, _Worker.seed)
            spooled += [
                Spooled(sample.key, rank, _put(file, sample.face), _put(file, sample.body), sample.labels)
                for sample in picture.samples
            ]
    return spooled, rejected


def _rank(identity: bytes, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:".encode() + hashlib.sha256(identity).digest()).digest()[:8]


def _put(file, data: bytes | None) -> Stretch | None:
    if data is None:
        return None
    offset = file.tell()
    file.write(data)
    return Stretch(file.name, offset, len(data))


def _take(stretch: Stretch | None) -> bytes | None:
    if stretch is None:
        return None
    with open(stretch.file, "rb") as file:
        file.seek(stretch.offset)
        return file.read(stretch.size)


def _name_apart(spooled: Iterable[Spooled]) -> list[Spooled]:
    """Samples with unique keys: the second of a name becomes ``name_2``."""
    taken: set[str] = set()
    apart = []
    for sample in spooled:
        key, number = sample.key, 2
        while key in taken:
            key, number = f"{sample.key}_{number}", number + 1
        taken.add(key)
        apart.append(sample if key == sample.key else replace(sample, key=key))
    return apart


def _without(spooled: list[Spooled], exclude: Collection[str]) -> list[Spooled]:
    return [one for one in spooled if one.key not in exclude and one.labels.extra.get("source") not in exclude]


def _deal_out(spooled: list[Spooled], split: dict[str, float]) -> dict[str, list[Spooled]]:
    """The samples of every split, in their final order."""
    ends = list(accumulate(split.values()))
    dealt = {name: [] for name in split}
    for sample in sorted(spooled, key=lambda sample: (sample.rank, sample.key)):
        chance = int.from_bytes(sample.rank, "big") / 2**64
        name = next((name for name, end in zip(split, ends, strict=True) if chance < end), list(split)[-1])
        dealt[name].append(sample)
    for name, samples in dealt.items():
        if not samples:
            raise UserError(f"--split: {name}={split[name]} of {len(spooled)} samples is none; give it a larger share")
    return dealt


def _write_shards(
    pool: ProcessPoolExecutor, folder: Path, by_split: dict[str, list[Spooled]], samples_per_shard: int
) -> None:
    paths, parts = [], []
    for name, samples in by_split.items():
        (folder / name).mkdir()
        for number, first in enumerate(range(0, len(samples), samples_per_shard)):
            paths.append(folder / name / f"{name}-{number:06d}.tar")
            parts.append(samples[first : first + samples_per_shard])
    for _ in tqdm(pool.map(_write_shard, paths, parts), total=len(paths), desc="shards", unit="", disable=None):
        pass


def _write_shard(path: Path, samples: Sequence[Spooled]) -> None:
    # Time, user and mode are part of a tar; fixed, so that the same samples are the same bytes.
    with wds.TarWriter(str(path), encoder=False, mtime=0, user="root", group="root", mode=0o644) as tar:
        for spooled in samples:
            sample = Sample(spooled.key, _take(spooled.face), _take(spooled.body), spooled.labels)
            tar.write({"__key__": sample.key} | sample.members())
