"""A subset of an index: without excluded samples, or of some folds."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from mivolo_lite.errors import UserError
from mivolo_lite.labels import FOLD, GENDERS
from mivolo_lite.shards.columns import EXTRA
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.wording import first_few


class SubsetIndex(ShardIndex):
    """A subset of an index, in the same order and with its own digest. Its columns are copies in the memory of each
    process.

    Args:
        full_index: the index.
        is_included: (N,) bool: which samples are in the subset.
        subset: describes them, as JSON; part of the digest.
    """

    def __init__(self, full_index: ShardIndex, is_included: np.ndarray, subset: Any):
        columns = {name: column[is_included] for name, column in full_index.columns.items() if name != "keys"}
        super().__init__(full_index.folder, full_index.info, columns | _keys(full_index, is_included), full_index.cache)
        self.full_index = full_index
        self.info = self._info(subset)

    @property
    def full_digest(self) -> str:
        return self.full_index.full_digest

    @property
    def folds(self) -> tuple[int, ...] | None:
        return self.full_index.folds

    def _info(self, subset: Any) -> dict[str, Any]:
        info = self.full_index.info
        samples = np.bincount(self.columns["shard"], minlength=len(info["shards"])).tolist()
        return info | {
            "digest": hashlib.sha256(json.dumps([info["digest"], subset]).encode()).hexdigest(),
            "samples": len(self),
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


class FoldIndex(SubsetIndex):
    """The samples of some folds of an index.

    Args:
        full_index: the index.
        folds: their numbers.

    Raises:
        UserError: the samples have no folds, or not this one.
    """

    def __init__(self, full_index: ShardIndex, folds: Sequence[int]):
        known = fold_numbers(full_index)
        if missing := set(folds) - set(known):
            raise UserError(
                f"{full_index.folder}: has no fold {min(missing)}; there are {', '.join(f'{fold:g}' for fold in known)}"
            )
        self._folds = tuple(folds)
        super().__init__(full_index, np.isin(full_index.columns[EXTRA + FOLD], folds), {"folds": sorted(folds)})

    @property
    def folds(self) -> tuple[int, ...]:
        return self._folds

    def __reduce__(self) -> tuple:
        return FoldIndex, (self.full_index, self.folds)


def fold_numbers(index: ShardIndex) -> list[float]:
    """The sorted folds of the samples. Raises UserError if the samples have none."""
    column = index.columns.get(EXTRA + FOLD)
    if column is None:
        raise UserError(f"{index.folder}: has no folds; pack it with --folds 5, or leave `folds` out")
    if words := index.info.get("words", {}).get(FOLD):
        raise UserError(
            f"{index.folder}: its folds are words ({first_few(words)}); number them in the samples' JSON, and run "
            "`mivolo-lite index` again"
        )
    return np.unique(column[~np.isnan(column)]).tolist()


def select_folds(index: ShardIndex, folds: Sequence[int] | None) -> ShardIndex:
    """The samples of some folds; the index itself for None."""
    return index if folds is None else FoldIndex(index, folds)


def _keys(index: ShardIndex, is_included: np.ndarray) -> dict[str, np.ndarray]:
    ends = index.columns["key_end"]
    lengths = np.diff(ends, prepend=0)
    return {"keys": index.columns["keys"][np.repeat(is_included, lengths)], "key_end": np.cumsum(lengths[is_included])}
