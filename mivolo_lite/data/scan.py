"""Building the index of a folder of shards: one scan of its tars."""

import hashlib
import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mivolo_lite.data.columns import extra_columns, label_columns, said
from mivolo_lite.data.index import INFO_FILE, SCHEMA_VERSION, ShardIndex, check_of
from mivolo_lite.data.labels import GENDERS, IDENTITY, MAX_AGE, NO_CODE
from mivolo_lite.data.pool import worker_pool
from mivolo_lite.data.rejects import REJECTED_FILE, check_reject_rate, write_rejected
from mivolo_lite.data.sample import BODY_EXTENSIONS, FACE_EXTENSIONS, LABEL_EXTENSIONS, Labels
from mivolo_lite.errors import UserError

_COMPRESSED_NAMES = (".gz", ".tgz", ".zst", ".xz", ".txz", ".bz2", ".tbz2", ".lz4")
_COMPRESSED_HEADS = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ": "xz",
    b"BZh": "bzip2",
    b"\x04\x22\x4d\x18": "lz4",
}


@dataclass
class ShardScan:
    """What one tar holds. Columns are per sample, in the order of the tar."""

    name: str
    size: int
    sha256: str
    keys: list[str] = field(default_factory=list)
    face: list[tuple[int, int]] = field(default_factory=list)
    body: list[tuple[int, int]] = field(default_factory=list)
    labels: list[Labels] = field(default_factory=list)
    checks: list[int] = field(default_factory=list)
    rejected: list[dict] = field(default_factory=list)


def index_shards(
    folder: Path | str,
    crop_policy: dict[str, Any] | None = None,
    groups: list[str] | None = None,
    max_reject_rate: float = 0.01,
    workers: int = 1,
) -> ShardIndex:
    """Scan a folder's tars, and write its index, ``dataset.json`` and, where needed, ``rejected.jsonl``.

    Args:
        folder: holds uncompressed ``.tar`` shards, also other people's (``.jpg`` with ``.json`` or ``.cls``).
        crop_policy: how the crops were made, where that is known; otherwise what an earlier ``dataset.json`` says.
        groups: group names in code order; otherwise those of an earlier ``dataset.json``, then others found, sorted.
        max_reject_rate: largest share of samples that may be unusable.
        workers: processes that scan.

    Raises:
        UserError: no shards, compressed or truncated shards, a key that occurs twice, or too many rejects.
    """
    folder = Path(folder)
    scans = _scan_all(_shard_paths(folder), workers)
    rejected = [reject for scan in scans for reject in scan.rejected]
    check_reject_rate(rejected, sum(len(scan.keys) for scan in scans), max_reject_rate, folder)
    _name_apart(scans)
    labels = [label for scan in scans for label in scan.labels]
    earlier = _earlier_info(folder)
    crop_policy = crop_policy or earlier.get("crop_policy")
    if not groups:
        before = earlier.get("groups", [])
        groups = before + sorted({label.group for label in labels if label.group is not None} - set(before))
    if len(groups) >= NO_CODE:
        raise UserError(f"{folder}: {len(groups)} different groups; at most {NO_CODE - 1} can be told apart")
    extra, words = extra_columns(labels)
    info = _info(scans, labels, groups, crop_policy, len(rejected)) | {"words": words}
    index = ShardIndex(folder, info, _columns(scans, labels, groups) | extra)
    index.save()
    (folder / REJECTED_FILE).unlink(missing_ok=True)  # an earlier scan's
    if rejected:
        write_rejected(folder / REJECTED_FILE, rejected)
    return index


def _earlier_info(folder: Path) -> dict[str, Any]:
    """An earlier ``dataset.json``, of whatever version, or nothing."""
    try:
        info = json.loads((folder / INFO_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return info if isinstance(info, dict) else {}


def _shard_paths(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    compressed = sorted(path.name for path in folder.iterdir() if path.name.lower().endswith(_COMPRESSED_NAMES))
    if compressed:
        raise UserError(
            f"{folder / compressed[0]}: compressed tars cannot be read at an offset; unpack it to a plain .tar"
        )
    paths = sorted(folder.glob("*.tar"))
    if not paths:
        raise UserError(f"{folder}: holds no .tar shards")
    return paths


def _scan_all(paths: list[Path], workers: int) -> list[ShardScan]:
    bar = partial(tqdm, total=len(paths), desc="index", unit=" shards", disable=None)
    if workers == 1 or len(paths) == 1:
        return list(bar(map(scan_shard, paths)))
    with worker_pool(workers) as pool:
        return list(bar(pool.map(scan_shard, paths)))


def scan_shard(path: Path) -> ShardScan:
    """Offsets and labels of every sample of one tar. Raises UserError for a compressed, damaged or unreadable one."""
    try:
        with open(path, "rb") as file:
            _refuse_compressed(path, file.read(6))
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            scan = ShardScan(path.name, file.tell(), digest)
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for key, members in _grouped(tar):
                    _scan_sample(scan, tar, key, members)
                _check_end(tar)
    except tarfile.TarError as error:
        raise UserError(f"{path}: damaged or truncated tar ({error}); write it again") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    return scan


def _refuse_compressed(path: Path, head: bytes) -> None:
    for magic, name in _COMPRESSED_HEADS.items():
        if head.startswith(magic):
            raise UserError(f"{path}: compressed with {name}, cannot be read at an offset; unpack it to a plain .tar")


def _check_end(tar: tarfile.TarFile) -> None:
    """Raise ReadError where the members do not end in zeros: tarfile takes a cut or damaged header for the end."""
    tar.fileobj.seek(tar.offset)
    end = tar.fileobj.read(tarfile.RECORDSIZE)
    if len(end) < tarfile.BLOCKSIZE or end.strip(b"\0"):
        raise tarfile.ReadError("no end of archive behind its last member")


def _grouped(tar: tarfile.TarFile) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """(key, {extension: member}) of neighbouring members with one key, as WebDataset groups them."""
    key, members = None, {}
    for member in tar:
        if not member.isfile():
            continue
        folder, slash, base = member.name.rpartition("/")
        stem, _, extension = base.partition(".")
        if folder + slash + stem != key:
            if members:
                yield key, members
            key, members = folder + slash + stem, {}
        members[extension.lower()] = member
    if members:
        yield key, members


def _scan_sample(scan: ShardScan, tar: tarfile.TarFile, key: str, members: dict[str, tarfile.TarInfo]) -> None:
    face = next((members[name] for name in FACE_EXTENSIONS if name in members), None)
    body = next((members[name] for name in BODY_EXTENSIONS if name in members), None)
    try:
        key.encode()  # UnicodeEncodeError is a ValueError
        if not any(member is not None and member.size for member in (face, body)):
            raise ValueError(f"no face or body picture among its members ({', '.join(sorted(members))})")
        labels = Labels.from_members(
            {name: tar.extractfile(members[name]).read() for name in LABEL_EXTENSIONS if name in members}
        )
    except ValueError as error:
        picture = f"{scan.name}:{key}".encode(errors="replace").decode()
        scan.rejected.append({"picture": picture, "reason": str(error)})
        return
    scan.keys.append(key)
    scan.face.append((face.offset_data, face.size) if face else (0, 0))
    scan.body.append((body.offset_data, body.size) if body else (0, 0))
    scan.labels.append(labels)
    scan.checks.append(check_of(*(tar.extractfile(member).read() if member else b"" for member in (face, body))))


def _columns(scans: list[ShardScan], labels: list[Labels], groups: list[str]) -> dict[str, np.ndarray]:
    codes = {name: code for code, name in enumerate(groups)}
    keys = [key.encode() for scan in scans for key in scan.keys]
    face = np.array([place for scan in scans for place in scan.face], dtype=np.int64)
    body = np.array([place for scan in scans for place in scan.body], dtype=np.int64)
    return {
        "shard": np.repeat(np.arange(len(scans), dtype=np.int32), [len(scan.keys) for scan in scans]),
        "face_offset": face[:, 0].copy(),
        "face_size": face[:, 1].astype(np.int32),
        "body_offset": body[:, 0].copy(),
        "body_size": body[:, 1].astype(np.int32),
        **label_columns(labels),
        "group": np.array([codes.get(label.group, NO_CODE) for label in labels], dtype=np.uint8),
        "check": np.array([check for scan in scans for check in scan.checks], dtype=np.uint64),
        "key_end": np.cumsum([len(key) for key in keys], dtype=np.int64),
        "keys": np.frombuffer(b"".join(keys), dtype=np.uint8),
    }


def _info(scans, labels, groups, crop_policy, rejected) -> dict[str, Any]:
    shards = [
        {"file": scan.name, "samples": len(scan.keys), "bytes": scan.size, "sha256": scan.sha256} for scan in scans
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "digest": hashlib.sha256(json.dumps(shards).encode()).hexdigest(),
        "samples": len(labels),
        "rejected": rejected,
        "crop_policy": crop_policy or {},
        "groups": groups,
        "labels": _statistics(scans, labels, groups),
        "shards": shards,
    }


def _statistics(scans: list[ShardScan], labels: list[Labels], groups: list[str]) -> dict[str, Any]:
    ages = np.array([sum(label.age) / 2 for label in labels if label.age is not None])
    people = Counter(str(who) for label in labels if (who := said(label.extra.get(IDENTITY))) is not None)
    tens = np.arange(0, MAX_AGE + 10, 10)
    counts, _ = np.histogram(ages, bins=np.append(tens, MAX_AGE + 10))
    age = {"known": len(ages), "ranges": sum(label.age is not None and label.age[0] < label.age[1] for label in labels)}
    if len(ages):
        age |= {"min": ages.min(), "max": ages.max(), "mean": round(float(ages.mean()), 4)}
        age["by_decade"] = {f"{lo}-{lo + 9}": int(n) for lo, n in zip(tens, counts, strict=True) if n}
    return {
        "face": sum(size > 0 for scan in scans for _, size in scan.face),
        "body": sum(size > 0 for scan in scans for _, size in scan.body),
        "age": age,
        "gender": {name: sum(label.gender == name for label in labels) for name in GENDERS},
        "group": {name: sum(label.group == name for label in labels) for name in groups},
        "identity": {"known": sum(people.values()), "people": len(people)},
    }


def _name_apart(scans: list[ShardScan]) -> None:
    """Make keys unique: where two tars share one, every key is prefixed with its tar's name."""
    keys = [key for scan in scans for key in scan.keys]
    if len(set(keys)) == len(keys):
        return
    for scan in scans:
        repeated = [key for key, times in Counter(scan.keys).items() if times > 1]
        if repeated:
            raise UserError(f"{scan.name}: key {repeated[0]} occurs more than once; give each sample its own key")
        scan.keys = [f"{Path(scan.name).stem}/{key}" for key in scan.keys]
