"""Lists of samples to leave out of a data set: one a line, and after a tab, for people, the reason."""

import hashlib
import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mivolo_lite.errors import UserError
from mivolo_lite.files import explain_write_errors, write_text
from mivolo_lite.labels import GENDERS
from mivolo_lite.shards.index import ShardIndex

_ROWS = 2**20  # keys looked at together


def write_exclusions(path: Path, exclusions: Iterable[tuple[str, str]]) -> None:
    """Write (key, reason) as a list that ``read_exclusions`` takes. Raises UserError where that cannot be."""
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(f"{key}\t{reason}\n" for key, reason in exclusions))


def read_exclusions(path: Path | str | None, option: str = "--exclude") -> frozenset[str]:
    """The names in a list, none without one. Raises UserError, with the option, where it cannot be read."""
    if not path:
        return frozenset()
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(
            f"{option} {path}: {error.strerror}; give a list such as `mivolo-lite audit --fix` writes"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{option} {path}: not text in UTF-8; give one key or image name a line") from None
    return frozenset(name for line in lines if (name := line.partition("\t")[0].strip()))


class FilteredIndex(ShardIndex):
    """An index without some samples: the others keep their order, and the digest is its own.

    Its columns are copies, which each process of a node holds by itself; leave out of very large data sets with
    ``mivolo-lite index --exclude``.

    Args:
        full_index: the index.
        names: keys to leave out, also with the folder before them, as a run of several data sets names them.

    Raises:
        UserError: no sample is left.
    """

    def __init__(self, full_index: ShardIndex, names: Collection[str]):
        named = _named(full_index, names)
        if named.all():
            raise UserError(f"{full_index.folder}: the list to leave out names all {len(full_index)} samples")
        self.full_index, self.names = full_index, names
        columns = {name: column[~named] for name, column in full_index.columns.items() if name != "keys"}
        super().__init__(full_index.folder, full_index.info, columns | _keys(full_index, ~named), full_index.cache)
        self.info = self._info([full_index.key(sample) for sample in np.flatnonzero(named).tolist()])

    def __reduce__(self):
        return FilteredIndex, (self.full_index, self.names)

    def _info(self, excluded: list[str]) -> dict[str, Any]:
        info = self.full_index.info
        samples = np.bincount(self.columns["shard"], minlength=len(info["shards"])).tolist()
        named = json.dumps([info["digest"], sorted(excluded)])
        return info | {
            "digest": hashlib.sha256(named.encode()).hexdigest(),
            "samples": len(self),
            "excluded": info.get("excluded", 0) + len(excluded),
            "labels": info["labels"] | self._label_counts(),
            "shards": [shard | {"samples": count} for shard, count in zip(info["shards"], samples, strict=True)],
        }

    def _label_counts(self) -> dict[str, Any]:
        columns = self.columns
        middle = (columns["age_lo"] + columns["age_hi"]) / 2
        ages = middle[~np.isnan(middle)]
        span = {"min": float(ages.min()), "max": float(ages.max())} if len(ages) else {}
        return {
            **{name: int((columns[f"{name}_size"] > 0).sum()) for name in ("face", "body")},
            "age": {"known": len(ages), "ranges": int((columns["age_lo"] < columns["age_hi"]).sum())} | span,
            "gender": {name: int((columns["gender"] == code).sum()) for code, name in enumerate(GENDERS)},
            "group": {name: int((columns["group"] == code).sum()) for code, name in enumerate(self.groups)},
        }


def leave_out(index: ShardIndex, names: Collection[str]) -> ShardIndex:
    """The index without the samples that are named; the index itself where none is."""
    return FilteredIndex(index, names) if _named(index, names).any() else index


def count_left_out(index: ShardIndex) -> int:
    """How many samples ``leave_out`` left out of an index."""
    return len(index.full_index) - len(index) if isinstance(index, FilteredIndex) else 0


def _named(index: ShardIndex, names: Collection[str]) -> np.ndarray:
    """(N,) bool: whether a sample's key is among the names."""
    names = {name.removeprefix(f"{index.folder}/").encode(errors="surrogateescape") for name in names}
    named, begin = np.zeros(len(index), dtype=bool), 0
    for start in range(0, len(index) if names else 0, _ROWS):
        ends = index.columns["key_end"][start : start + _ROWS]
        keys, bounds = index.columns["keys"][begin : ends[-1]].tobytes(), [0, *(ends - begin).tolist()]
        named[start : start + _ROWS] = [keys[bounds[n] : bounds[n + 1]] in names for n in range(len(ends))]
        begin = int(ends[-1])
    return named


def _keys(index: ShardIndex, keep: np.ndarray) -> dict[str, np.ndarray]:
    """``keys`` and ``key_end`` of the samples (N,) bool."""
    sizes = np.diff(index.columns["key_end"], prepend=0)
    return {"keys": index.columns["keys"][np.repeat(keep, sizes)], "key_end": np.cumsum(sizes[keep])}
