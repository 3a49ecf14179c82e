"""Building the index of a folder of shards by one scan of its tars, which any tool may have written."""

import json
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mivolo_lite.errors import UserError
from mivolo_lite.files import explain_write_errors
from mivolo_lite.labels import NO_CODE
from mivolo_lite.process_pool import worker_map
from mivolo_lite.shards.columns import extra_columns, label_columns
from mivolo_lite.shards.dataset_info import dataset_info
from mivolo_lite.shards.exclude import names_of, without_folder
from mivolo_lite.shards.index import INFO_FILE, ShardIndex
from mivolo_lite.shards.members import member_columns
from mivolo_lite.shards.rejects import REJECTED_FILE, check_reject_rate, write_rejected
from mivolo_lite.shards.sample import Labels
from mivolo_lite.shards.tar_scan import LONGEST_NAME, MOST_FIELDS, ShardScan, printable, scan_shard
from mivolo_lite.wording import first_few

_COMPRESSED_TARS = (".tgz", ".tbz2", ".txz", *(f".tar.{end}" for end in ("gz", "bz2", "xz", "zst", "lz4", "lzma", "z")))


def index_shards(
    folder: Path | str,
    crop_policy: dict[str, Any] | None = None,
    groups: list[str] | None = None,
    max_reject_rate: float = 0.01,
    workers: int = 1,
    exclude: Collection[str] = (),
) -> ShardIndex:
    """Scan a folder's tars, and write its index, ``dataset.json`` and, where needed, ``rejected.jsonl``.

    Args:
        folder: holds uncompressed ``.tar`` shards, from any tool (``.jpg`` with ``.json`` or ``.cls``).
        crop_policy: how the crops were made; by default that of an earlier ``dataset.json``.
        groups: group names in code order; by default those of an earlier ``dataset.json``, then others, sorted.
        max_reject_rate: largest share of samples that may be unusable.
        workers: processes that scan.
        exclude: samples to leave out, by their key, their image (``source`` in their JSON) or their name in
            ``rejected.jsonl``. They change the digest.

    Raises:
        UserError: no shards, compressed or damaged shards, or too many rejects; or the index cannot be written.
    """
    folder = Path(folder)
    paths, nested = _shard_paths(folder)
    scans = _scan_all(paths, workers)
    _make_keys_unique(scans)
    excluded, excluded_rejects, unmatched = _exclude(scans, without_folder(str(folder), exclude))
    rejected = [reject for scan in scans for reject in scan.rejected]
    if excluded and not any(scan.samples for scan in scans):
        raise UserError(f"{folder}: the list to leave out names all {len(excluded)} samples")
    check_reject_rate(rejected, sum(len(scan.samples) for scan in scans), max_reject_rate, folder)
    labels = [sample.labels for scan in scans for sample in scan.samples]
    earlier_policy, earlier_groups = earlier_info(folder)
    groups = groups or _group_names(labels, earlier_groups)
    if len(groups) >= NO_CODE:
        raise UserError(f"{folder}: {len(groups)} different groups; at most {NO_CODE - 1} can be told apart")
    extra, words, mixed = extra_columns(labels)
    info = dataset_info(scans, labels, groups, crop_policy or earlier_policy, excluded) | {"words": words}
    if nested:
        info["folders_left_out"] = nested
    if mixed:
        info["mixed"] = [printable(name)[:LONGEST_NAME] for name in mixed[:MOST_FIELDS]]
    if exclude:
        info |= {"excluded": len(excluded) + excluded_rejects, "exclude_unmatched": unmatched}
    index = ShardIndex(folder, info, _columns(scans, labels, groups) | extra)
    index.save()
    with explain_write_errors(folder / REJECTED_FILE):
        (folder / REJECTED_FILE).unlink(missing_ok=True)  # an earlier scan's
        if rejected:
            write_rejected(folder / REJECTED_FILE, rejected)
    return index


def earlier_info(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Crop policy and groups of an earlier ``dataset.json``, of any version, even damaged."""
    try:
        info = json.loads((folder / INFO_FILE).read_bytes())
        policy, groups = info.get("crop_policy"), info.get("groups")
    except (OSError, ValueError, RecursionError, AttributeError):  # AttributeError: the JSON is no object
        return {}, []
    named = isinstance(groups, list) and all(isinstance(group, str) for group in groups)
    return policy if isinstance(policy, dict) else {}, list(dict.fromkeys(groups)) if named else []


def _group_names(labels: list[Labels], earlier: list[str]) -> list[str]:
    """The groups in code order: those of an earlier index, then others, sorted."""
    return earlier + sorted({label.group for label in labels if label.group is not None} - set(earlier))


def _shard_paths(folder: Path) -> tuple[list[Path], list[str]]:
    """The tars of a folder, and the names of folders in it that hold tars, which are not read."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder of the tars")
    paths = _listed(folder)
    for path in paths:
        if path.name.lower().endswith(_COMPRESSED_TARS):
            raise UserError(f"{path}: compressed tars cannot be read at an offset; unpack it to a plain .tar")
    folders = [path for path in paths if path.is_dir()]
    nested = [path.name for path in folders if any(map(_is_tar, _listed(path)))]
    tars = [path for path in paths if _is_tar(path) and path not in folders]
    if not tars and nested:
        raise UserError(
            f"{folder}: holds no .tar shards itself, but its folders do ({first_few(nested)}): index each of them; "
            "data.train takes a list"
        )
    if not tars:
        raise UserError(f"{folder}: holds no .tar shards")
    for path in tars:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: not a file")
    return tars, nested


def _is_tar(path: Path) -> bool:
    return path.suffix.lower() == ".tar"


def _listed(folder: Path) -> list[Path]:
    """The entries of a folder, without hidden files: macOS puts a ``._NAME`` of metadata beside each ``NAME``."""
    try:
        visible = (path for path in folder.iterdir() if not path.name.startswith("."))
        return sorted(visible, key=Path.as_posix)  # Windows compares paths without regard to case
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {error.strerror}") from None


def _scan_all(paths: list[Path], workers: int) -> list[ShardScan]:
    bar = partial(tqdm, total=len(paths), desc="index", unit=" shards", disable=None)
    with worker_map(min(workers, len(paths))) as map_shards:
        return list(bar(map_shards(scan_shard, paths)))


def _columns(scans: list[ShardScan], labels: list[Labels], groups: list[str]) -> dict[str, np.ndarray]:
    codes: dict[str | None, int] = {name: code for code, name in enumerate(groups)}
    samples = [sample for scan in scans for sample in scan.samples]
    keys = [sample.key.encode() for sample in samples]
    return {
        "shard": np.repeat(np.arange(len(scans), dtype=np.int32), [len(scan.samples) for scan in scans]),
        **member_columns([sample.spans for sample in samples], [sample.crcs for sample in samples]),
        **label_columns(labels),
        "group": np.array([codes.get(label.group, NO_CODE) for label in labels], dtype=np.uint8),
        "key_end": np.cumsum([len(key) for key in keys], dtype=np.int64),
        "keys": np.frombuffer(b"".join(keys), dtype=np.uint8),
    }


def _make_keys_unique(scans: list[ShardScan]) -> None:
    """Prefix every key with its tar's name if two tars share a key."""
    keys = [sample.key for scan in scans for sample in scan.samples]
    if len(set(keys)) == len(keys):
        return
    for scan in scans:
        stem = Path(scan.name).stem
        scan.samples = [sample._replace(key=f"{stem}/{sample.key}") for sample in scan.samples]


def _exclude(scans: list[ShardScan], exclude: Collection[str]) -> tuple[list[str], int, list[str]]:
    """Leave out the named samples. Returns their keys, the number of named rejects, and the names without a match."""
    excluded: list[str] = []
    rejects, unmatched = 0, set(exclude)
    for scan in scans if exclude else ():
        named = [names_of(sample.key, sample.labels) for sample in scan.samples]
        included = [sample for sample, keys in zip(scan.samples, named, strict=True) if keys.isdisjoint(exclude)]
        excluded += {sample.key for sample in scan.samples} - {sample.key for sample in included}
        names = [{name := reject["image"], name.removeprefix(f"{scan.name}:")} for reject in scan.rejected]
        rejected = [reject for reject, keys in zip(scan.rejected, names, strict=True) if keys.isdisjoint(exclude)]
        rejects += len(scan.rejected) - len(rejected)
        unmatched -= set().union(*named, *names)
        scan.samples, scan.rejected = included, rejected
    return sorted(excluded), rejects, sorted(unmatched)
