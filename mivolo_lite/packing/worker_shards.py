"""Packs a data set by many commands on any machines: each reads its worker shard, the last to finish writes the shards.

The shards are byte-identical to those of a single command. Reading, which decodes and crops the images, takes most of
the time. Merging copies the crops into the shards.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mivolo_lite.errors import UserError
from mivolo_lite.packing.pack import Packed, as_splitting, atomic_folder, check_layout, write_splits
from mivolo_lite.packing.sources.source import Source
from mivolo_lite.packing.splitting import Splitting
from mivolo_lite.packing.temporary_samples import ByteSpan, ReadResult, TemporarySample, read_photos
from mivolo_lite.shards.rejects import REJECTED_FILE, check_reject_rate, write_rejected
from mivolo_lite.shards.sample import Labels
from mivolo_lite.system import try_lock

_IMAGES, _SAMPLES, _MISSING, _HEADER = "images", "samples.jsonl", "missing.json", "part.json"
_MERGING = "merging"


@dataclass(frozen=True)
class WorkerShard:
    """The images that one of ``count`` commands reads; ``number`` counts from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "WorkerShard":
        """Parse ``"3/16"``. Raises UserError for another form."""
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        shard = cls(*map(int, match.groups())) if match else cls(0, 0)
        if not 1 <= shard.number <= shard.count:
            raise UserError(f"--shard {text}: write it as 3/16, with a number from 1 to the count")
        return shard

    def of(self, items: Sequence[str]) -> Sequence[str]:
        """The items of this worker shard; those of all worker shards concatenated are all items in order."""
        return items[len(items) * (self.number - 1) // self.count : len(items) * self.number // self.count]

    @property
    def folder(self) -> str:
        return f"{self.number:05d}-of-{self.count:05d}"


def pack_worker_shard(
    source: Source,
    out: Path | str,
    split: Splitting | dict[str, float] | None,
    shard: WorkerShard,
    samples_per_shard: int = 1000,
    seed: int = 0,
    workers: int = 1,
    max_reject_rate: float = 0.01,
    exclude: Collection[str] = (),
) -> Packed | None:
    """Read one worker shard into ``out.parts``. If all are complete then, write ``out`` as ``pack`` does.

    A complete one is not read again, so that a failed command can be repeated.

    Args:
        shard: the worker shard; the other arguments are those of ``pack``, and must be equal for all.

    Returns:
        The result of packing, or None while others are missing or another command is merging.

    Raises:
        UserError: as ``pack``, or other worker shards were read with other options.
    """
    out = Path(out)
    splitting = as_splitting(split, source)
    check_layout(out, samples_per_shard)
    items = source.items()
    parts_folder, merged_folder = (out.with_name(out.name + ending) for ending in (".parts", ".parts.merged"))
    for folder in (parts_folder, merged_folder):
        _check_content(folder)
    header = _header(source, items, seed)
    folders = [parts_folder / WorkerShard(worker, shard.count).folder for worker in range(1, shard.count + 1)]
    _check_headers(folders, header)  # before reading, so that a command with wrong options writes nothing
    if not (parts_folder / shard.folder).exists():
        with atomic_folder(parts_folder / shard.folder) as partial:
            reading = read_photos(source, shard.of(items), partial / _IMAGES, seed, workers)
            _write(partial, reading, header)
    if not all(folder.exists() for folder in folders):
        return None
    with _try_lock(parts_folder / _MERGING) as is_locked:
        if not is_locked or out.exists():
            return None
        _check_headers(folders, header)
        reading = _read_all(folders)
        check_reject_rate(reading.rejected, len(items) - len(reading.rejected), max_reject_rate, out)
        with atomic_folder(out) as partial:
            packed = write_splits(partial, reading, source, splitting, samples_per_shard, workers, exclude)
    # renamed first, so that no late command finds some of the parts
    shutil.rmtree(merged_folder, ignore_errors=True)  # left by a killed command
    shutil.rmtree(parts_folder.rename(merged_folder))
    return replace(packed, folder=out)


def _check_content(folder: Path) -> None:
    """Raise UserError if a folder has other files than worker shards, since it is removed at the end."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name != _MERGING and not re.match(r"\d+-of-\d+", path.name):
            raise UserError(f"{path}: is no part of a data set; move it, or choose another --out")


def _header(source: Source, items: Sequence[str], seed: int) -> dict:
    """The values that must be equal in all worker shards of a data set."""
    digest = hashlib.sha256("\n".join(items).encode(errors="surrogateescape")).hexdigest()
    # labels and options without paths, which may differ between machines
    settings = [(name, value) for name, value in vars(source).items() if name not in ("images", "preface")]
    options = repr([type(source).__name__, *settings])
    options_digest = hashlib.sha256(options.encode(errors="surrogateescape")).hexdigest()
    return {
        "images": len(items),
        "digest": digest,
        "source": options_digest,
        "seed": seed,
        "crop_policy": source.crop_policy,
    }


@contextmanager
def _try_lock(lock: Path) -> Iterator[bool]:
    """Whether this process got the lock, which the kernel releases when a process ends."""
    try:
        file = open(lock, "wb")
    except FileNotFoundError:  # another command is done
        yield False
        return
    with file:
        yield try_lock(file)


def _write(folder: Path, reading: ReadResult, header: dict) -> None:
    """Write the samples as JSON next to the images."""
    with open(folder / _SAMPLES, "w", encoding="utf-8") as file:
        for sample in reading.samples:
            record = {
                "key": sample.key,
                "rank": sample.rank.hex(),
                "lot": sample.lot.hex(),
                "face": _relative(sample.face),
                "body": _relative(sample.body),
                "labels": sample.labels.to_json(),
                "split": sample.split,
            }
            file.write(json.dumps(record) + "\n")
    write_rejected(folder / REJECTED_FILE, reading.rejected)
    missing = [[crop, reason, count] for (crop, reason), count in reading.missing.items()]
    (folder / _MISSING).write_text(json.dumps(missing), encoding="utf-8")
    (folder / _HEADER).write_text(json.dumps(header), encoding="utf-8")


def _relative(span: ByteSpan | None) -> list | None:
    return None if span is None else [Path(span.file).name, span.offset, span.size]


def _check_headers(folders: list[Path], header: dict) -> None:
    """Raise UserError if existing worker shards do not match this command."""
    for folder in folders:
        try:
            recorded = json.loads((folder / _HEADER).read_text(encoding="utf-8"))
        except FileNotFoundError:  # not read yet, or already merged by another command
            continue
        if recorded != json.loads(json.dumps(header)):
            raise UserError(
                f"{folder}: read from other images or labels, or with other options; give the same ones here, or "
                "remove it, and read it again"
            )


def _read_all(folders: list[Path]) -> ReadResult:
    """All worker shards as one result."""
    reading = ReadResult()
    for folder in folders:
        with open(folder / _SAMPLES, encoding="utf-8") as file:
            reading.samples.extend(_temporary_sample(json.loads(line), folder / _IMAGES) for line in file)
        with open(folder / REJECTED_FILE, encoding="utf-8") as file:
            reading.rejected.extend(map(json.loads, file))
        if (folder / _MISSING).exists():  # missing in parts of an older version
            for crop, reason, count in json.loads((folder / _MISSING).read_text(encoding="utf-8")):
                reading.missing[crop, reason] += count
    return reading


def _temporary_sample(record: dict, folder: Path) -> TemporarySample:
    face, body = (
        None if span is None else ByteSpan(str(folder / span[0]), *span[1:])
        for span in (record["face"], record["body"])
    )
    rank, lot = (bytes.fromhex(record[name]) for name in ("rank", "lot"))
    labels = Labels.from_json(record["labels"])
    return TemporarySample(record["key"], rank, lot, face, body, labels, record.get("split"))  # older parts have none
