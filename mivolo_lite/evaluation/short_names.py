"""Short names that distinguish folders."""

import re
from collections.abc import Sequence

from mivolo_lite.errors import UserError


def short_names(folders: Sequence[str], option: str, dropped: str = "$") -> list[str]:
    """A name for each folder: its last two parts, or more if needed to distinguish them."""
    paths = [re.findall(r"[\w.-]*\w[\w.-]*", re.sub(dropped, "", folder)) or ["data"] for folder in folders]
    for depth in range(2, max(map(len, paths)) + 2):
        names = ["-".join(path[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise UserError(f"{option} {' '.join(folders)}: one of them is given twice")


def distinct_labels(names: Sequence[str]) -> list[str]:
    """The parts in which names differ: ``x`` and ``y`` for ``runs/x/evaluation`` and ``runs/y/evaluation``.

    Args:
        names: different names of folders, with or without an input in parentheses at the end.
    """
    paths = [re.findall(r"[^/\\\s()]+", name) for name in names]
    shortest = min(map(len, paths))
    first = next((depth for depth in range(shortest) if len({path[depth] for path in paths}) > 1), shortest)
    last = next((depth for depth in range(shortest - first) if len({path[-1 - depth] for path in paths}) > 1), 0)
    labels = [" ".join(path[first : len(path) - last]) for path in paths]
    return labels if all(labels) and len(set(labels)) == len(labels) else list(names)
