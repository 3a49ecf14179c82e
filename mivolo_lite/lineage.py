"""The origin of a checkpoint: the digests of its training data, its initial checkpoint, and its teachers."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mivolo_lite.card import CARD_FILE, JOINT, Card, locate
from mivolo_lite.errors import UserError
from mivolo_lite.hub import is_hub_address
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.yaml_file import read_yaml_file

RUN_FILE = "config.yaml"
"""A run's configuration, in its folder."""

_FOLDS = " folds "
"""Between the digest of a data set and the folds that were used, as in ``DIGEST folds 0,1``."""


def lineage(checkpoint: Path | str) -> list[Path]:
    """The folders of a checkpoint, of its initial checkpoint and teachers, of theirs, and so on.

    Those that are not on this machine are left out.
    """
    folders: list[Path] = []
    pending = [checkpoint]
    while pending:
        folder = locate(pending.pop())
        if (folder / CARD_FILE).is_file() and folder not in folders:
            folders.append(folder)
            pending += [parent for parent in _parents(folder) if not is_hub_address(parent)]
    return folders


def data_digest(folder: Path) -> str:
    """The digest of the data that a checkpoint was trained on; empty if its card cannot be read."""
    try:
        return Card.load(folder).data_digest
    except UserError:
        return ""


def with_full_digests(digest: str, indexes: Sequence[ShardIndex]) -> str:
    """A digest of data. For samples that are a part of a data set, its full digest with the folds is appended.

    Args:
        digest: of the data.
        indexes: of the samples.
    """
    names = [_full_name(index) for index in indexes if index.full_digest not in digest]
    return JOINT.join([digest, *names])


def _full_name(index: ShardIndex) -> str:
    return index.full_digest + ("" if index.folds is None else _FOLDS + ",".join(map(str, index.folds)))


def shares_samples(digests: str, index: ShardIndex) -> bool:
    """Whether samples of an index are in the data of a card, as far as it names them. Exclusion lists are ignored,
    since their contents are unknown."""
    return index.digest in digests or any(_is_of(name, index) for name in digests.split(JOINT))


def _is_of(name: str, index: ShardIndex) -> bool:
    digest, _, listed = name.partition(_FOLDS)
    if index.full_digest not in digest:
        return False
    return not listed or index.folds is None or not {*map(str, index.folds)}.isdisjoint(listed.split(","))


def joined_digests(own: str, checkpoints: Iterable[Path | str]) -> str:
    """The digests of all data behind a new checkpoint, each once, as ``A + B``. Its card keeps them without its run.

    Args:
        own: digest of the data that it was trained on itself, or empty.
        checkpoints: those that it was made from, with their lineage.
    """
    digests = [own, *(data_digest(folder) for checkpoint in checkpoints for folder in lineage(checkpoint))]
    return JOINT.join(dict.fromkeys(name for digest in digests for name in digest.split(JOINT) if name))


def run_config(folder: Path) -> dict[str, Any]:
    """The configuration in ``RUN`` for ``RUN/best`` or ``RUN/checkpoints/NAME``; empty if there is none."""
    folder = folder.absolute()
    run = folder.parents[1] if folder.parent.name == "checkpoints" else folder.parent if folder.name == "best" else None
    try:
        return {} if run is None else read_yaml_file(run / RUN_FILE, "")
    except UserError:
        return {}


def _parents(folder: Path) -> list[str]:
    """A checkpoint's initial checkpoint and its teachers, from its run's configuration."""
    config = run_config(folder)
    optim = config.get("optim")
    teachers = optim.get("teachers") if isinstance(optim, dict) else None
    return [str(parent) for parent in (config.get("init_from"), *(teachers or ())) if parent]
