"""Lists of samples to leave out of a data set: one in each line, optionally with a tab and the reason."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mivolo_lite.errors import UserError
from mivolo_lite.files import explain_write_errors, write_text
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.sample import Labels
from mivolo_lite.shards.subset import SubsetIndex
from mivolo_lite.wording import count_of, first_few

_ROWS = 2**20  # keys looked at together


def write_exclusions(path: Path, exclusions: Iterable[tuple[str, str]]) -> None:
    """Write (key, reason) as a list for ``read_exclusions``. Raises UserError if that is not possible."""
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(f"{key}\t{reason}\n" for key, reason in exclusions))


def read_exclusions(path: Path | str | None, option: str = "--exclude") -> frozenset[str]:
    """The names in a list, none without one. Raises UserError, with the option, where it cannot be read."""
    if not path:
        return frozenset()
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(
            f"{option} {path}: {error.strerror}; give a list such as `mivolo-lite audit --fix` writes"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{option} {path}: not text in UTF-8; give one key or image name a line") from None
    return frozenset(name for line in lines if (name := line.partition("\t")[0].strip()))


def names_of(key: str, labels: Labels) -> set[str]:
    """The names of a sample in such a list: its key and its image. Other tools' JSON may have a list of images."""
    source = labels.extra.get("source")
    return {key, source} if isinstance(source, str) else {key}


def without_folder(folder: str, names: Iterable[str]) -> frozenset[str]:
    """The names of an exclusion list, without the prefix of this folder."""
    return frozenset(name.removeprefix(f"{folder}/") for name in names)


def left_out_line(count: int, names: Collection[str], unmatched: Sequence[str]) -> str:
    """How many samples were left out, and which names no sample has."""
    line = f"{count_of(count, 'sample')} left out, of {count_of(len(names), 'name')} to leave out"
    return line + (f"; {len(unmatched)} of them match no sample: {first_few(unmatched)}" if unmatched else "")


class FilteredIndex(SubsetIndex):
    """An index without some samples. Its columns are copies; for very large data sets use ``mivolo-lite index
    --exclude``.

    Args:
        full_index: the index.
        names: keys to leave out, or ``FOLDER/KEY`` as in a run of several data sets.

    Raises:
        UserError: no sample is left.
    """

    def __init__(self, full_index: ShardIndex, names: Collection[str]):
        named = _named(full_index, names)
        if named.all():
            raise UserError(f"{full_index.folder}: the list to leave out names all {len(full_index)} samples")
        self.names = names
        excluded = sorted(full_index.key(sample) for sample in np.flatnonzero(named).tolist())
        super().__init__(full_index, ~named, excluded)
        self.info |= {"excluded": full_index.info.get("excluded", 0) + len(excluded)}

    def __reduce__(self) -> tuple[Any, ...]:
        return FilteredIndex, (self.full_index, self.names)


def leave_out(index: ShardIndex, names: Collection[str]) -> ShardIndex:
    """The index without the samples that are named; the index itself where none is."""
    return FilteredIndex(index, names) if _named(index, names).any() else index


def count_left_out(index: ShardIndex) -> int:
    """How many samples ``leave_out`` left out of an index."""
    return len(index.full_index) - len(index) if isinstance(index, FilteredIndex) else 0


def _named(index: ShardIndex, names: Collection[str]) -> np.ndarray:
    """(N,) bool: whether a sample's key is among the names."""
    named_keys = {name.encode(errors="surrogateescape") for name in without_folder(str(index.folder), names)}
    named, begin = np.zeros(len(index), dtype=bool), 0
    for start in range(0, len(index) if named_keys else 0, _ROWS):
        ends = index.columns["key_end"][start : start + _ROWS]
        keys, bounds = index.columns["keys"][begin : ends[-1]].tobytes(), [0, *(ends - begin).tolist()]
        named[start : start + _ROWS] = [keys[bounds[n] : bounds[n + 1]] in named_keys for n in range(len(ends))]
        begin = int(ends[-1])
    return named
