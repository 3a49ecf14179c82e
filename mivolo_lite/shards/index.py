"""The index of a folder of shards: the offset of every member, and the labels of every sample.

One scan of the tars gives ``index.safetensors`` (columns, read through the page cache) and ``dataset.json`` (for
people). With it, any sample is one ``pread`` away, so the order of training need not follow the order on disk.

``dataset.json`` holds the digest of ``index.safetensors``, which holds a checksum of every sample's members. So any
part of a shard can be verified without reading the rest.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from mivolo_lite.errors import UserError, one_line
from mivolo_lite.files import save_tensors, write_json
from mivolo_lite.labels import IDENTITY
from mivolo_lite.paths import is_url
from mivolo_lite.shards.cache import CacheConfig, NodeCache
from mivolo_lite.shards.remote import RemoteFolder
from mivolo_lite.shards.schema import check_columns, check_info
from mivolo_lite.system import open_to_read
from mivolo_lite.wording import first_few

_INDEX_PART = 32 * 2**20  # bytes of one request for an index
INDEX_FILE, INFO_FILE = "index.safetensors", "dataset.json"


class ShardIndex:
    """Every sample of a folder of shards.

    Attributes:
        folder: of the tars: a path, or a RemoteFolder.
        info: the content of ``dataset.json``.
        columns: arrays over the samples: ``shard``; ``face_offset``, ``face_size``, ``body_offset``, ``body_size``
            in bytes (size 0 where the crop is absent); ``age_lo``, ``age_hi`` in years (NaN where unknown);
            ``gender``, ``group`` as codes (``NO_CODE`` where unknown); ``extra.<name>``, see ``extra_columns``;
            ``key_end`` into the bytes of ``keys``; ``labels_offset``, ``labels_size`` of the member with the labels,
            and ``face_crc``, ``body_crc``, ``labels_crc`` (older indexes lack these, see ``Members``).
        cache: of the node, for shards at a URL.
    """

    def __init__(
        self,
        folder: Path | RemoteFolder,
        info: dict[str, Any],
        columns: dict[str, np.ndarray],
        cache: CacheConfig | None = None,
    ):
        self.folder, self.info, self.columns, self.cache = folder, info, columns, cache or CacheConfig()

    @classmethod
    def load(cls, address: Path | str, cache: CacheConfig | None = None) -> "ShardIndex":
        """Read the index of a folder, or of shards at a URL.

        Args:
            address: a folder, or ``s3://``, ``gs://``, ``https://``, ``hf://``.
            cache: of the node, for shards at a URL.

        Raises:
            UserError: there is no index, it is damaged, or the shards in a folder are not the indexed ones.
        """
        return _load_remote(str(address), cache or CacheConfig()) if is_url(address) else _load_local(Path(address))

    def __reduce__(self) -> tuple:
        # A worker process that is not forked maps the columns again instead of receiving them.
        address = self.folder.url if isinstance(self.folder, RemoteFolder) else str(self.folder)
        return _load_again, (address, self.cache)

    def save(self) -> None:
        """Write both files, each by a rename. Raises UserError where they cannot be written."""
        columns, info = (self._path(f"{name}.partial") for name in (INDEX_FILE, INFO_FILE))
        try:
            save_tensors(self.columns, columns, {"digest": self.digest})
            self.info["index"] = {"bytes": columns.stat().st_size, "sha256": _sha256(columns)}
            info.write_text(json.dumps(self.info, indent=2) + "\n", encoding="utf-8")
            os.replace(columns, self._path(INDEX_FILE))
            os.replace(info, self._path(INFO_FILE))
        except (OSError, SafetensorError) as error:
            raise UserError(f"{self.folder}: the index cannot be written: {error}") from None

    def save_info(self) -> None:
        """Write ``dataset.json`` alone, by a rename. Raises UserError where it cannot be written."""
        write_json(self._path(INFO_FILE), self.info)

    def __len__(self) -> int:
        return len(self.columns["shard"])

    @property
    def digest(self) -> str:
        """Identifies exactly these shards; part of every checkpoint."""
        return self.info["digest"]

    @property
    def full_digest(self) -> str:
        """The digest of the data set that the samples are of, which may have more."""
        return self.digest

    @property
    def folds(self) -> tuple[int, ...] | None:
        """The folds that the samples are of; None for any."""
        return None

    @property
    def is_remote(self) -> bool:
        return isinstance(self.folder, RemoteFolder)

    @property
    def groups(self) -> list[str]:
        """The names of the groups, by their codes."""
        return self.info["groups"]

    @property
    def num_identities(self) -> int:
        """The number of identities; 0 in an older index without that count."""
        return self.info["labels"].get(IDENTITY, {"people": 0})["people"]

    @property
    def shard_sizes(self) -> np.ndarray:
        """(shards,) samples in each shard."""
        return np.array([shard["samples"] for shard in self.info["shards"]])

    def shard_name(self, shard: int) -> str:
        return self.info["shards"][shard]["file"]

    def shard_path(self, shard: int) -> Path:
        return self._path(self.shard_name(shard))

    def open_shard(self, shard: int) -> int:
        """A descriptor to read a shard in a folder. Raises OSError, or UserError if its size has changed."""
        path = self.shard_path(shard)
        file = open_to_read(path)
        if os.fstat(file).st_size != self.info["shards"][shard]["bytes"]:
            os.close(file)
            raise UserError(
                f"{path}: missing or changed since it was indexed; run `mivolo-lite index {self.folder}`, or copy it "
                "here again"
            )
        return file

    def _path(self, name: str) -> Path:
        """A file of shards on a disk."""
        if isinstance(self.folder, RemoteFolder):
            raise TypeError(f"{self.folder}: at a URL, so that {name} has no path")
        return self.folder / name

    def key(self, sample: int) -> str:
        """The key of a sample, by its number."""
        ends = self.columns["key_end"]
        start = 0 if sample == 0 else ends[sample - 1]
        return self.columns["keys"][start : ends[sample]].tobytes().decode(errors="replace")

    def select(self, name: str, samples: np.ndarray) -> np.ndarray:
        """(B,) values of a column at the samples (B,)."""
        return self.columns[name][samples]

    def has_image(self, inputs: Sequence[str]) -> np.ndarray:
        """(N,) bool: which samples have any of these images, of ``face`` and ``body``."""
        return np.logical_or.reduce([self.columns[f"{name}_size"] > 0 for name in inputs])

    def some_with_image(self, inputs: Sequence[str], most: int) -> np.ndarray:
        """(n,) at most ``most`` of the samples that have any of these images, evenly spaced."""
        samples = np.flatnonzero(self.has_image(inputs))
        return samples[np.unique(np.linspace(0, len(samples) - 1, min(most, len(samples))).astype(int))]

    def age_counts(self, min_age: int, max_age: int) -> np.ndarray:
        """(max_age - min_age + 1,) how many samples have each age; ranges count at their middle, unknown ages not at
        all."""
        middle = (self.columns["age_lo"] + self.columns["age_hi"]) / 2
        ages = np.clip(np.rint(middle[~np.isnan(middle)]), min_age, max_age).astype(np.int64)
        return np.bincount(ages - min_age, minlength=max_age - min_age + 1)


def _load_again(address: str, cache: CacheConfig) -> ShardIndex:
    """Load the index in a child of a process that has already compared it with its digest."""
    return _load_remote(address, cache) if is_url(address) else _load_local(Path(address), check_digest=False)


def _is_indexed(folder: Path) -> bool:
    return (folder / INDEX_FILE).is_file() and (folder / INFO_FILE).is_file()


def _why_none(folder: Path, advice: str) -> str:
    """The error for a folder without an index, with what to do."""
    if not folder.is_dir():
        return "no such folder; give one that `mivolo-lite pack` or `index` made"
    if splits := sorted(path.name for path in folder.iterdir() if _is_indexed(path)):
        return f"no indexed shards here, but in its folders: give one of them, as in {folder / splits[0]}"
    return f"no indexed shards here; pack a data set or {advice}"


def _load_local(folder: Path, check_digest: bool = True) -> ShardIndex:
    advice = f"run `mivolo-lite index {folder}`"
    try:
        if not _is_indexed(folder):
            raise UserError(f"{folder}: {_why_none(folder, advice)}")
        info = _read_info((folder / INFO_FILE).read_bytes(), folder, advice)
        if check_digest:
            _check_digest(folder, info, advice)
        columns = _map_columns(folder / INDEX_FILE, info, folder, advice)
        _require_shards(folder, [shard["file"] for shard in info["shards"]], advice)
    except OSError as error:
        raise UserError(f"{error.filename or folder}: {error.strerror}; {advice}") from None
    return ShardIndex(folder, info, columns)


def _require_shards(folder: Path, names: Sequence[str], advice: str) -> None:
    """Raise UserError if an indexed shard is missing from its folder, or a shard of the folder from the index.

    Only names are compared here, and sizes when a shard is opened: the sizes of 100,000 shards took each rank 7 seconds
    and 100,000 requests to a shared file system.
    """
    listed: dict[str, set[str]] = {}
    for name in names:
        parent, _, file = name.rpartition("/")
        if parent not in listed:
            listed[parent] = set(os.listdir(folder / parent)) if (folder / parent).is_dir() else set()
        if file not in listed[parent]:
            raise UserError(f"{folder / name}: missing or changed since it was indexed; {advice}")
    added = sorted(name for name in listed.get("", set()) - set(names) if name.lower().endswith(".tar"))
    if added:
        raise UserError(f"{folder}: {first_few(added)} came after the index, which lacks it; {advice}")


def _check_digest(folder: Path, info: dict[str, Any], advice: str) -> None:
    """Compare the columns with their digest, which indexes of older versions lack.

    This reads all of them, at 0.6 to 2 GB a second: 3 to 11 seconds of each rank's start for the 6.6 GB of 100 million
    samples, which are then in the page cache for training. Worker processes do not repeat it.
    """
    if "index" not in info:
        return
    if (folder / INDEX_FILE).stat().st_size != info["index"]["bytes"] or (
        _sha256(folder / INDEX_FILE) != info["index"]["sha256"]
    ):
        raise UserError(f"{folder}: damaged index, or {INDEX_FILE} and {INFO_FILE} were not written together; {advice}")


def _load_remote(url: str, config: CacheConfig) -> ShardIndex:
    """The index of shards at a URL. Each node fetches its columns once, to a file named by their digest.

    The shards themselves are not requested here, since 100,000 shards would take as many requests from each rank. They
    are verified when they are read.
    """
    folder, cache = RemoteFolder(url), NodeCache.of(config)
    advice = "run `mivolo-lite index` on the shards and upload them with their index.safetensors and dataset.json"
    info = _read_info(folder.read(INFO_FILE), folder, advice)
    if "index" not in info:
        raise UserError(f"{folder}: indexed by an older version, without checks for reading from afar; {advice}")
    size, digest = info["index"]["bytes"], info["index"]["sha256"]
    name = f"{digest}.safetensors"
    for _ in range(2):
        with cache.open(name, size, partial(_fetch_index, folder, size, digest, config.connections)) as file:
            if _sha256(file) == digest:
                return ShardIndex(folder, info, _map_columns(cache.folder / name, info, folder, advice), config)
        cache.drop(name)  # damaged on the node's disk, since fetched files were already checked
    raise UserError(f"data.cache.folder {cache.folder}: the disk changes what is written to it; choose another folder")


def _fetch_index(folder: RemoteFolder, size: int, digest: str, connections: int, file: int) -> None:
    hasher, step = hashlib.sha256(), connections * _INDEX_PART
    with open(file, "wb", closefd=False) as out, ThreadPoolExecutor(connections) as pool:
        for begin in range(0, size, step):  # limits the memory of concurrent parts
            starts = range(begin, min(begin + step, size), _INDEX_PART)
            ends = [min(start + _INDEX_PART, size) for start in starts]
            for chunk in pool.map(partial(folder.read, INDEX_FILE), starts, ends):
                hasher.update(chunk)
                out.write(chunk)
    if hasher.hexdigest() != digest:
        raise UserError(f"{folder}: {INDEX_FILE} and {INFO_FILE} were not written together; upload both again")


def _read_info(content: bytes, folder: Path | RemoteFolder, advice: str) -> dict[str, Any]:
    try:
        return check_info(json.loads(content))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{folder}/{INFO_FILE}: damaged index ({one_line(error)}); {advice}") from None


def _map_columns(path: Path, info: dict[str, Any], folder: Path | RemoteFolder, advice: str) -> dict[str, np.ndarray]:
    try:
        # safetensors' torch reader maps the file. Its numpy reader would copy 100 million samples into every process.
        with safe_open(path, framework="pt") as file:
            digest = (file.metadata() or {}).get("digest")
            columns = {name: file.get_tensor(name).numpy() for name in file.keys()}
        if info["digest"] != digest:
            raise UserError(f"{folder}: {INDEX_FILE} and {INFO_FILE} were not written together; {advice}")
        check_columns(columns, info)
    except (ValueError, TypeError, SafetensorError) as error:  # TypeError: a type that numpy does not have
        raise UserError(f"{folder}/{INDEX_FILE}: damaged index ({one_line(error)}); {advice}") from None
    return columns


def _sha256(file: Path | int) -> str:
    """The digest of a file, given by its path or an open descriptor, which stays open."""
    with open(file, "rb", closefd=not isinstance(file, int)) as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
