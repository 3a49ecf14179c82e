"""Packing a data set of images into one folder of shards per split, which appears complete or not at all.

Images are read once, in parallel, into temporary files. The samples are then ordered and written as tars. The order is
by digests of the images, so the number of workers and the time of packing do not change a byte.
"""

import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from tqdm import tqdm

from mivolo_lite.errors import UserError
from mivolo_lite.files import explain_write_errors, lock_or_explain
from mivolo_lite.packing.sources.source import Source
from mivolo_lite.packing.splitting import Splitting, people_in_several
from mivolo_lite.packing.tar_writer import TarWriter
from mivolo_lite.packing.temporary_samples import ReadResult, TemporarySample, read_photos
from mivolo_lite.process_pool import worker_map
from mivolo_lite.shards.exclude import names_of
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.rejects import REJECTED_FILE, check_reject_rate, write_rejected
from mivolo_lite.shards.scan import index_shards
from mivolo_lite.system import remove_locked

_LOCK = b"mivolo-lite writes the folder beside this file; where no command runs, a killed one left both\n"


@dataclass(frozen=True)
class Packed:
    """The result of packing.

    Attributes:
        folder: has a folder of shards for each split.
        split_names: names of these folders.
        rejected: the images that could not be used, each with its reason.
        excluded: how many samples ``exclude`` named.
        unmatched: the names in it that no sample has.
        notes: counts of other left-out samples, and of people in two splits or folds.
    """

    folder: Path
    split_names: list[str]
    rejected: list[dict]
    excluded: int
    unmatched: list[str]
    notes: list[str]

    @cached_property
    def splits(self) -> dict[str, ShardIndex]:
        """The index of every split."""
        return {name: ShardIndex.load(self.folder / name) for name in self.split_names}


def pack(
    source: Source,
    out: Path | str,
    split: Splitting | dict[str, float] | None = None,
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
        split: how to split the samples; a dict has the share of each split, None keeps the data set's own splits.
        samples_per_shard: most samples in a tar.
        seed: of the split and the shuffling.
        workers: processes.
        max_reject_rate: largest share of images that may be unusable.
        exclude: keys or image names of samples to leave out.

    Raises:
        UserError: ``out`` exists, the shares do not add up, a split stays empty, or too many images are rejected.
    """
    out, splitting = Path(out), as_splitting(split, source)
    check_layout(out, samples_per_shard)
    items = source.items()
    with atomic_folder(out) as partial:
        folder = partial / ".samples"  # no split has such a name
        reading = read_photos(source, items, folder, seed, workers)
        check_reject_rate(reading.rejected, len(items) - len(reading.rejected), max_reject_rate, out)
        packed = write_splits(partial, reading, source, splitting, samples_per_shard, workers, exclude)
        shutil.rmtree(folder)
    return replace(packed, folder=out)


def as_splitting(split: Splitting | dict[str, float] | None, source: Source) -> Splitting:
    """``split`` as a ``Splitting``. Raises UserError if the source does not allow it."""
    splitting = split if isinstance(split, Splitting) else Splitting(split)
    splitting.check(source)
    if splitting.shares is not None:
        source.ignore_splits()
    return splitting


def _missing_crops(reading: ReadResult) -> Iterator[str]:
    """Notes on people of whom one crop is absent, counted by reason."""
    plural, other_crop = {"face": "faces", "body": "bodies"}, {"face": "body", "body": "face"}
    for (name, reason), count in sorted(reading.missing.items()):
        absent = sum(times for (crop, _), times in reading.missing.items() if crop == name)
        boxes = absent + sum(getattr(sample, name) is not None for sample in reading.samples)
        yield f"{count} of {boxes} {plural[name]} {reason}: of these people the {other_crop[name]} alone is kept"


def check_layout(out: Path, samples_per_shard: int) -> None:
    """Raise UserError for what cannot be written."""
    if out.exists():
        raise UserError(f"--out {out}: already exists; remove it or choose another folder")
    if samples_per_shard < 1:
        raise UserError(f"--samples_per_shard {samples_per_shard}: must be at least 1")


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """A temporary folder that is renamed to ``out`` when complete, and removed on failure.

    Raises:
        UserError: it cannot be written, another command is writing it, or its name is taken by something else.
    """
    partial = out.with_name(out.name + ".partial")
    with explain_write_errors(f"--out {out}"):
        out.parent.mkdir(parents=True, exist_ok=True)
        with _locked(out) as left_behind:
            if partial.exists() and not left_behind:
                raise UserError(f"{partial}: was not made by a killed command; move it, or choose another --out")
            shutil.rmtree(partial, ignore_errors=True)
            try:
                partial.mkdir()
                yield partial
                os.rename(partial, out)
            finally:
                shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _locked(out: Path) -> Iterator[bool]:
    """Lock the folder against other commands.

    A killed command leaves the lock file, which shows that its partial results may be removed.

    Yields:
        Whether a killed command left the lock.
    """
    lock = out.with_name(out.name + ".lock")
    left_behind = _is_own_lock(lock)
    with open(lock, "ab") as file:
        lock_or_explain(file, out)
        try:
            yield left_behind
        finally:
            remove_locked(file, lock)


def _is_own_lock(lock: Path) -> bool:
    """Whether a killed command left this lock, which is created if missing. Raises UserError for any other file."""
    try:
        with open(lock, "xb") as file:
            file.write(_LOCK)
        return False
    except FileExistsError:
        if lock.read_bytes() != _LOCK:
            raise UserError(f"{lock}: was not made by this command; move it, or choose another --out") from None
        return True


def write_splits(
    folder: Path,
    reading: ReadResult,
    source: Source,
    splitting: Splitting,
    samples_per_shard: int,
    workers: int,
    exclude: Collection[str],
) -> Packed:
    """Write shards, indices and the list of rejected images."""
    groups = sorted({sample.labels.group for sample in reading.samples if sample.labels.group is not None})
    samples = _with_unique_keys(reading.samples)
    named = [names_of(sample.key, sample.labels) for sample in samples]
    included = [sample for sample, names in zip(samples, named, strict=True) if names.isdisjoint(exclude)]
    unmatched = sorted(set(exclude).difference(*named))
    by_split = splitting.divide(included, source)
    _write_shards(folder, by_split, samples_per_shard, workers)
    for name in by_split:
        index_shards(folder / name, source.crop_policy, groups, workers=workers)
    write_rejected(folder / REJECTED_FILE, reading.rejected)
    notes = [*source.notes, *_missing_crops(reading), *people_in_several(by_split)]
    return Packed(folder, list(by_split), reading.rejected, len(samples) - len(included), unmatched, notes)


def _with_unique_keys(samples: Iterable[TemporarySample]) -> list[TemporarySample]:
    """Samples with unique keys: the second ``name`` becomes ``name_2``."""
    keys: set[str] = set()
    last_suffix: dict[str, int] = {}
    unique = []
    for sample in samples:
        key, suffix = sample.key, last_suffix.get(sample.key, 1)
        while key in keys:
            suffix += 1
            key = f"{sample.key}_{suffix}"
        last_suffix[sample.key] = suffix  # otherwise 100,000 samples of one name take quadratic time
        keys.add(key)
        unique.append(sample if key == sample.key else replace(sample, key=key))
    return unique


def _write_shards(
    folder: Path, by_split: dict[str, list[TemporarySample]], samples_per_shard: int, workers: int
) -> None:
    paths, shards = [], []
    for name, samples in by_split.items():
        (folder / name).mkdir()
        for shard, start in enumerate(range(0, len(samples), samples_per_shard)):
            paths.append(folder / name / f"{name}-{shard:06d}.tar")
            shards.append(samples[start : start + samples_per_shard])
    with worker_map(min(workers, len(paths))) as map_shards:
        for _ in tqdm(map_shards(_write_shard, paths, shards), total=len(paths), desc="shards", unit="", disable=None):
            pass


def _write_shard(path: Path, samples: Sequence[TemporarySample]) -> None:
    with open(path, "wb") as file:
        tar = TarWriter(file)
        for temporary in samples:
            sample = temporary.sample()
            for extension, data in sorted(sample.members().items()):
                tar.add(f"{sample.key}.{extension}", data)
        tar.close()
