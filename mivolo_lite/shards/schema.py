"""The schema of ``dataset.json`` and ``index.safetensors``, checked once, when they are loaded.

Other code relies on it: every member is inside its shard, and every code has a name.
"""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from mivolo_lite.labels import GENDERS, IDENTITY, MAX_AGE, MIN_AGE, NO_CODE
from mivolo_lite.shards.columns import EXTRA

SCHEMA_VERSION = 1

_COUNT, _SHA256 = "a count", "a SHA-256"
_INFO = {
    "digest": _SHA256,
    "samples": _COUNT,
    "rejected": _COUNT,
    "crop_policy": dict,
    "groups": [str],
    "labels": {
        "face": _COUNT,
        "body": _COUNT,
        "age": {"known": _COUNT, "ranges": _COUNT},
        "gender": dict.fromkeys(GENDERS, _COUNT),
        "group": {},
    },
    "shards": [{"file": str, "samples": _COUNT, "bytes": _COUNT}],
}
_LATER = {
    "index": {"bytes": _COUNT, "sha256": _SHA256},
    "excluded": _COUNT,
    "exclude_unmatched": [str],
    "unread": {"images": _COUNT, "first": str},
    "folders_left_out": [str],
    "fields": [str],
    "mixed": [str],
}
_HEX, _DECADE = re.compile("[0-9a-f]{64}"), re.compile("[0-9]{1,3}-[0-9]{1,3}")
_LARGEST_COUNT = 2**53  # the largest integer that all JSON readers represent exactly

_DTYPES = {
    "shard": np.int32,
    "face_offset": np.int64,
    "face_size": np.int32,
    "body_offset": np.int64,
    "body_size": np.int32,
    "age_lo": np.float32,
    "age_hi": np.float32,
    "gender": np.uint8,
    "group": np.uint8,
    "key_end": np.int64,
    "keys": np.uint8,
}
_CHECK_DTYPES = {
    "labels_offset": np.int64,
    "labels_size": np.int32,
    "face_crc": np.uint32,
    "body_crc": np.uint32,
    "labels_crc": np.uint32,
}
_ROWS = 2**20  # samples in one chunk: 100 million at once would take gigabytes


def check_info(info: Any) -> dict[str, Any]:
    """Check the content of a ``dataset.json``. Raises ValueError with the name of a wrong value."""
    version = info.get("schema_version") if isinstance(info, dict) else None
    if isinstance(version, bool) or version != SCHEMA_VERSION:
        raise ValueError(f"schema version {version!r:.50}, not {SCHEMA_VERSION}")
    _match(info, _INFO | {name: form for name, form in _LATER.items() if name in info}, "")
    _match(info["labels"].get(IDENTITY, {"people": 0}), {"people": _COUNT}, f"labels.{IDENTITY}")
    if info["labels"]["age"]["known"]:
        _match(info["labels"]["age"], {"min": int | float, "max": int | float}, "labels.age")
    decades = info["labels"]["age"].get("by_decade", {})
    for name, counts in (*((name, info["labels"][name]) for name in ("gender", "group")), ("age.by_decade", decades)):
        _match(counts, dict.fromkeys(counts, _COUNT) if isinstance(counts, dict) else {}, f"labels.{name}")
    if not all(_DECADE.fullmatch(decade) for decade in decades):
        raise ValueError("labels.age.by_decade is not by decades, as in 20-29")
    words = info.get("words", {})
    _match(words, dict.fromkeys(words, [str]) if isinstance(words, dict) else {}, "words")
    for shard in info["shards"]:
        path = PurePosixPath(shard["file"])
        if not path.name or path.is_absolute() or ".." in path.parts or "\0" in shard["file"]:
            raise ValueError(f"shards.file {shard['file']!r:.50} is not a file in the folder")
    total = sum(shard["samples"] for shard in info["shards"])
    if not total == info["samples"] > 0:
        raise ValueError(f"samples is {info['samples']}, and the shards have {total}")
    if len(info["groups"]) >= NO_CODE or len(set(info["groups"])) < len(info["groups"]):
        raise ValueError("groups are too many, or not all different")
    return info


def _match(value: Any, form: Any, name: str) -> None:
    """Raise ValueError if a value does not match the form: a type, a count, a list of one form, or a dict of forms."""
    if form == _COUNT:
        if type(value) is not int or not 0 <= value <= _LARGEST_COUNT:
            raise ValueError(f"{name} is {value!r:.50}, not a count")
    elif form == _SHA256:
        if not isinstance(value, str) or not _HEX.fullmatch(value):
            raise ValueError(f"{name} is {value!r:.50}, not a SHA-256")  # part of the file names of caches and copies
    elif isinstance(form, list):
        _match(value, list, name)
        for item in value:
            _match(item, form[0], name)
    elif isinstance(form, dict):
        _match(value, dict, name)
        for key, inner in form.items():
            if key not in value:
                raise ValueError(f"{name + '.' if name else ''}{key:.50} is missing")
            _match(value[key], inner, f"{name + '.' if name else ''}{key:.50}")
    elif not isinstance(value, form):
        raise ValueError(f"{name} is {value!r:.50}, not a {getattr(form, '__name__', 'number')}")


def check_columns(columns: Mapping[str, np.ndarray], info: Mapping[str, Any]) -> None:
    """Raise ValueError, with the column, if one contradicts the others or the checked ``dataset.json``.

    It takes about 0.05 seconds for a million samples.
    """
    _check_forms(columns, info["samples"])
    sizes = [shard["samples"] for shard in info["shards"]]
    length = np.array([shard["bytes"] for shard in info["shards"]], dtype=np.int64)
    shard = columns["shard"]
    _require("shard", shard.min() >= 0 and shard.max() < len(sizes))
    _require("shard", np.array_equal(np.bincount(shard, minlength=len(sizes)), sizes))
    before = 0
    for start in range(0, info["samples"], _ROWS):
        rows = {name: column[start : start + _ROWS] for name, column in columns.items() if name != "keys"}
        _check_places(rows, length)
        _check_labels(rows, info)
        ends = rows["key_end"]
        _require("key_end", ends[0] >= before and (ends[1:] >= ends[:-1]).all())
        before = ends[-1]
    _require("keys", before == len(columns["keys"]))


def _require(name: str, holds: bool | np.bool) -> None:
    if not holds:
        raise ValueError(f"column {name:.50} does not fit the rest")


def _check_forms(columns: Mapping[str, np.ndarray], samples: int) -> None:
    extra = {name: np.float32 for name in columns if name.startswith(EXTRA)}
    checks = _CHECK_DTYPES if not _CHECK_DTYPES.keys().isdisjoint(columns) else {}  # older indexes have none of them
    older = {"check": np.uint64} if "check" in columns else {}
    for name, dtype in (_DTYPES | checks | older | extra).items():
        if name not in columns:
            raise ValueError(f"column {name} is missing")
        column = columns[name]
        if column.dtype != dtype or column.ndim != 1 or name != "keys" and len(column) != samples:
            raise ValueError(
                f"column {name:.50} is {column.dtype} {list(column.shape)}, not {np.dtype(dtype)} [{samples}]"
            )


def _check_places(rows: Mapping[str, np.ndarray], length: np.ndarray) -> None:
    """Check that shards are numbered in the order of the samples, and that each member is inside its shard."""
    shard = rows["shard"]
    _require("shard", (shard[1:] >= shard[:-1]).all())
    end = length[shard]
    for name in ("face", "body", "labels"):
        if f"{name}_offset" in rows:
            offset, size = rows[f"{name}_offset"], rows[f"{name}_size"]
            _require(f"{name}_size", (size >= 0).all())
            _require(f"{name}_offset", ((offset >= 0) & (offset <= end - size)).all())


def _check_labels(rows: Mapping[str, np.ndarray], info: Mapping[str, Any]) -> None:
    lo, hi = rows["age_lo"], rows["age_hi"]
    is_unknown = np.isnan(lo) & np.isnan(hi)
    _require("age_lo", (is_unknown | (lo >= MIN_AGE) & (lo <= hi) & (hi <= MAX_AGE)).all())
    for name, names in (("gender", GENDERS), ("group", info["groups"])):
        _require(name, ((rows[name] < len(names)) | (rows[name] == NO_CODE)).all())
    label_counts = {name: len(words) for name, words in info.get("words", {}).items() if EXTRA + name in rows}
    if EXTRA + IDENTITY in rows:
        label_counts[IDENTITY] = info["labels"].get(IDENTITY, {"people": 0})["people"]
    for name, count in label_counts.items():
        code = rows[EXTRA + name]
        _require(EXTRA + name, (np.isnan(code) | (code >= 0) & (code < count) & (code == np.rint(code))).all())
