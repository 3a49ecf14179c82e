"""The index of a folder of shards: where every member lies and what is known of every sample.

One scan of the tars gives ``index.safetensors`` (columns, read through the page cache) and ``dataset.json`` (for
people). With it, any sample is one ``pread`` away, so the order of training need not follow the order on disk.

For shards that are read over a network, ``dataset.json`` holds the digest of ``index.safetensors``, and that one a
check of every sample's pictures: any stretch of any shard can be told to be what was indexed, without reading the rest.
"""

import hashlib
import json
import math
import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from mivolo_lite.data.cache import CacheConfig, NodeCache
from mivolo_lite.data.labels import GENDERS, IDENTITY, MAX_AGE, NO_CODE
from mivolo_lite.data.pool import worker_pool
from mivolo_lite.data.remote import RemoteFolder, is_url
from mivolo_lite.data.sample import BODY_EXTENSIONS, FACE_EXTENSIONS, LABEL_EXTENSIONS, Labels
from mivolo_lite.errors import UserError
from mivolo_lite.files import save_tensors

SCHEMA_VERSION = 1
_INDEX_PART = 32 * 2**20  # bytes of one request for an index
INDEX_FILE, INFO_FILE, REJECTED_FILE = "index.safetensors", "dataset.json", "rejected.jsonl"

EXTRA = "extra."
"""Prefix of the columns of what else the samples' JSON says."""

_COMPRESSED_NAMES = (".gz", ".tgz", ".zst", ".xz", ".txz", ".bz2", ".tbz2", ".lz4")
_LARGEST = 1e30
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


class ShardIndex:
    """Every sample of a folder of shards.

    Attributes:
        folder: where the tars lie: a path, or a RemoteFolder.
        info: the content of ``dataset.json``.
        columns: arrays over the samples: ``shard``; ``face_offset``, ``face_size``, ``body_offset``, ``body_size``
            in bytes (size 0 where the crop is absent); ``age_lo``, ``age_hi`` in years (NaN where unknown);
            ``gender``, ``group`` as codes (``NO_CODE`` where unknown); ``extra.<name>``, see ``extra_columns``;
            ``check`` of the pictures (``check_of``; older indexes lack it, which matters to shards at a URL alone);
            ``key_end`` into the bytes of ``keys``.
        cache: where a node keeps what it fetches, for shards at a URL.
    """

    def __init__(
        self,
        folder: Path | RemoteFolder,
        info: dict[str, Any],
        columns: dict[str, np.ndarray],
        cache: CacheConfig | None = None,
    ):
        self.folder, self.info, self.columns, self.cache = folder, info, columns, cache

    @classmethod
    def load(cls, address: Path | str, cache: CacheConfig | None = None) -> "ShardIndex":
        """Read the index of a folder, or of shards at a URL.

        Args:
            address: a folder, or ``s3://``, ``gs://``, ``https://``, ``hf://``.
            cache: where the node keeps what it fetches from a URL.

        Raises:
            UserError: there is no index, or it is damaged; or the shards in a folder are not the indexed ones.
        """
        return _load_remote(str(address), cache or CacheConfig()) if is_url(address) else _load_local(Path(address))

    def __reduce__(self):
        # A worker process that is not forked maps the columns anew instead of being sent them.
        return ShardIndex.load, (str(self.folder), self.cache)

    def save(self) -> None:
        """Write both files, each by a rename. Raises UserError where they cannot be written."""
        columns, info = (self.folder / f"{name}.partial" for name in (INDEX_FILE, INFO_FILE))
        try:
            save_tensors(self.columns, columns, {"digest": self.digest})
            self.info["index"] = {"bytes": columns.stat().st_size, "sha256": _sha256(columns)}
            info.write_text(json.dumps(self.info, indent=2) + "\n")
            os.replace(columns, self.folder / INDEX_FILE)
            os.replace(info, self.folder / INFO_FILE)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{self.folder}: the index cannot be written: {error}") from None

    def __len__(self) -> int:
        return len(self.columns["shard"])

    @property
    def digest(self) -> str:
        """Names exactly these shards; part of every checkpoint."""
        return self.info["digest"]

    @property
    def is_remote(self) -> bool:
        return isinstance(self.folder, RemoteFolder)

    @property
    def groups(self) -> list[str]:
        return self.info["groups"]

    @property
    def shard_sizes(self) -> np.ndarray:
        """(shards,) samples in each shard."""
        return np.array([shard["samples"] for shard in self.info["shards"]])

    def shard_name(self, shard: int) -> str:
        return self.info["shards"][shard]["file"]

    def shard_path(self, shard: int) -> Path:
        return self.folder / self.shard_name(shard)

    def key(self, sample: int) -> str:
        ends = self.columns["key_end"]
        start = 0 if sample == 0 else ends[sample - 1]
        return self.columns["keys"][start : ends[sample]].tobytes().decode()

    def take(self, name: str, samples: np.ndarray) -> np.ndarray:
        """(B,) values of a column at the samples (B,)."""
        return self.columns[name][samples]

    def age_counts(self, min_age: int, max_age: int) -> np.ndarray:
        """(max_age - min_age + 1,) how many samples have each age; ranges count at their middle, the rest not."""
        middle = (self.columns["age_lo"] + self.columns["age_hi"]) / 2
        ages = np.clip(np.rint(middle[~np.isnan(middle)]), min_age, max_age).astype(np.int64)
        return np.bincount(ages - min_age, minlength=max_age - min_age + 1)


def check_of(face: bytes, body: bytes) -> int:
    """64 bits that tell a sample's pictures from any others."""
    digest = hashlib.sha256(face)
    digest.update(body)
    return int.from_bytes(digest.digest()[:8], "little")


def _load_local(folder: Path) -> ShardIndex:
    if not (folder / INDEX_FILE).is_file() or not (folder / INFO_FILE).is_file():
        raise UserError(f"{folder}: no indexed shards here; pack a data set or run `mivolo-lite index {folder}`")
    mend = f"run `mivolo-lite index {folder}`"
    info = _read_info((folder / INFO_FILE).read_bytes(), folder, mend)
    columns = _map_columns(folder / INDEX_FILE, info, folder, mend)
    for shard in info["shards"]:
        path = folder / shard["file"]
        if not path.is_file() or path.stat().st_size != shard["bytes"]:
            raise UserError(f"{path}: missing or changed since it was indexed; {mend}")
    return ShardIndex(folder, info, columns)


def _load_remote(url: str, config: CacheConfig) -> ShardIndex:
    """The index of shards at a URL. Its columns are fetched once a node, under a name that tells their content.

    Nothing is asked of the shards: with 100,000 of them that would be as many requests of each rank. What is read of
    them is checked when it is read.
    """
    folder, cache = RemoteFolder(url), NodeCache.of(config)
    mend = "run `mivolo-lite index` on the shards and upload them with their index.safetensors and dataset.json"
    info = _read_info(folder.read(INFO_FILE), folder, mend)
    if "index" not in info:
        raise UserError(f"{folder}: indexed by an older version, without checks for reading from afar; {mend}")
    size, digest = info["index"]["bytes"], info["index"]["sha256"]
    name = f"{digest}.safetensors"
    with cache.open(name, size, partial(_fetch_index, folder, size, digest, config.connections)):
        return ShardIndex(folder, info, _map_columns(cache.folder / name, info, folder, mend), config)


def _fetch_index(folder: RemoteFolder, size: int, digest: str, connections: int, file: int) -> None:
    found, step = hashlib.sha256(), connections * _INDEX_PART
    with open(file, "wb", closefd=False) as out, ThreadPoolExecutor(connections) as pool:
        for begin in range(0, size, step):  # so many parts at once and not more, for the memory's sake
            starts = range(begin, min(begin + step, size), _INDEX_PART)
            ends = [min(start + _INDEX_PART, size) for start in starts]
            for part in pool.map(partial(folder.read, INDEX_FILE), starts, ends):
                found.update(part)
                out.write(part)
    if found.hexdigest() != digest:
        raise UserError(f"{folder}: {INDEX_FILE} and {INFO_FILE} were not written together; upload both again")


def _read_info(content: bytes, where: Path | RemoteFolder, mend: str) -> dict[str, Any]:
    try:
        info = json.loads(content)
    except ValueError as error:
        raise UserError(f"{where}: damaged index ({' '.join(str(error).split())}); {mend}") from None
    version = info.get("schema_version") if isinstance(info, dict) else None
    if version != SCHEMA_VERSION:
        raise UserError(f"{where}/{INFO_FILE}: schema version {version}, not {SCHEMA_VERSION}; {mend}")
    return info


def _map_columns(path: Path, info: dict[str, Any], where: Path | RemoteFolder, mend: str) -> dict[str, np.ndarray]:
    try:
        # The torch reader maps the file, numpy's copies it: 100 million samples would be copied into every process.
        with safe_open(path, framework="pt") as file:
            digest = (file.metadata() or {}).get("digest")
            columns = {name: file.get_tensor(name).numpy() for name in file.keys()}
    except (ValueError, SafetensorError) as error:
        raise UserError(f"{where}: damaged index ({' '.join(str(error).split())}); {mend}") from None
    if info["digest"] != digest:
        raise UserError(f"{where}: {INDEX_FILE} and {INFO_FILE} were not written together; {mend}")
    return columns


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def label_columns(labels: Sequence[Labels]) -> dict[str, np.ndarray]:
    """``age_lo``, ``age_hi`` and ``gender`` as ``ShardIndex`` has them."""
    ages = np.array([label.age or (np.nan, np.nan) for label in labels], dtype=np.float32)
    genders = [NO_CODE if label.gender is None else GENDERS.index(label.gender) for label in labels]
    return {"age_lo": ages[:, 0].copy(), "age_hi": ages[:, 1].copy(), "gender": np.array(genders, dtype=np.uint8)}


def extra_columns(labels: Sequence[Labels]) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """What else the samples' JSON says, where it is a number or one of a few words.

    Returns:
        ``extra.<name>``: (N,) float32, a number, or the place of a word in its list; NaN where unknown.
        The words of names that have them, sorted. A name with more words than a task could have classes is left out,
        but for the people of ``IDENTITY``: the column numbers them, however many they are (float32 counts to 16
        million), and nobody lists them.
    """
    columns, words = {}, {}
    for name in sorted({name for label in labels for name in label.extra}):
        values = [_said(label.extra.get(name)) for label in labels]
        known = [value for value in values if value is not None]
        if known and name == IDENTITY:
            people = [None if value is None else str(value) for value in values]
            columns[EXTRA + name] = _places(people, sorted({person for person in people if person is not None}))
        elif known and all(isinstance(value, str) for value in known) and len(set(known)) < NO_CODE:
            words[name] = sorted(set(known))
            columns[EXTRA + name] = _places(values, words[name])
        elif known and all(isinstance(value, int | float) and abs(value) < _LARGEST for value in known):
            columns[EXTRA + name] = np.array(values, dtype=np.float32)
    return columns, words


def _said(value: Any) -> Any:
    """A label, or None for a number that is none."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _places(values: Sequence[Any], choices: Sequence[Any]) -> np.ndarray:
    """(N,) float32: where each value stands among the choices, NaN where it does not."""
    places = {choice: place for place, choice in enumerate(choices)}
    return np.array([places.get(value, np.nan) for value in values], dtype=np.float32)


def check_reject_rate(rejected: list[dict], kept: int, limit: float, where: Path) -> None:
    """Raise UserError, with an example, where nothing was kept or more than the share ``limit`` was rejected."""
    total = len(rejected) + kept
    first = f"; the first is {rejected[0]['picture']}: {rejected[0]['reason']}" if rejected else ""
    if kept == 0:
        raise UserError(f"{where}: not one usable picture among {total}{first}")
    if len(rejected) > limit * total:
        raise UserError(
            f"{where}: {len(rejected)} of {total} rejected, over --max-reject-rate {limit:g}: "
            f"mend the input or raise the limit{first}"
        )


def write_rejected(path: Path, rejected: list[dict]) -> None:
    """One JSON object a line, with ``picture`` and ``reason``."""
    path.write_text("".join(json.dumps(reject) + "\n" for reject in rejected))


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
    people = Counter(str(who) for label in labels if (who := _said(label.extra.get(IDENTITY))) is not None)
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
