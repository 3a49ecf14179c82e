"""A copy of training data on a node's disk: ``python -m mivolo_lite.shards.stage FOLDER TO`` prints its path.

FOLDER is a value of ``data.train``. For a list of data sets, a list of their copies is printed.
"""

import json
import os
import shutil
import sys
from pathlib import Path

from mivolo_lite.errors import UserError
from mivolo_lite.paths import is_url
from mivolo_lite.shards.index import ShardIndex


def stage(folder: Path | str, to: Path | str) -> Path:
    """Copy a folder of indexed shards, completely or not at all, unless the copy exists.

    Args:
        folder: the shards.
        to: a folder for copies of data sets, each named by its digest.

    Returns:
        The copy.

    Raises:
        UserError: no indexed shards, or no room for them.
    """
    if is_url(folder):
        raise UserError(f"{folder}: shards at a URL have a cache on each node already; unset STAGE_DIR")
    index = ShardIndex.load(folder)
    copy = Path(to) / index.digest[:16]
    if copy.exists():
        ShardIndex.load(copy)
        return copy
    partial = copy.with_name(f"{copy.name}.{os.getpid()}.partial")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        needed, free = sum(shard["bytes"] for shard in index.info["shards"]), shutil.disk_usage(partial.parent).free
        if needed > free:
            raise UserError(f"{to}: {needed / 1e9:.1f} GB of shards, and {free / 1e9:.1f} GB free; read them in place")
        shutil.copytree(folder, partial)
        try:
            os.rename(partial, copy)
        except OSError:
            if not copy.exists():  # another job on this node was faster
                raise
    except OSError as error:
        raise UserError(f"{to}: the shards of {folder} cannot be copied there: {_reason(error)}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return copy


def _reason(error: OSError) -> str:
    """The first error: shutil lists all errors of a folder."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        return str(error.args[0][0][-1])
    return str(error)


def stage_all(train: str, to: str) -> str:
    """The value of ``data.train``, a folder or a list in JSON, with the folders replaced by copies."""
    if not train.startswith("["):
        return str(stage(train, to))
    try:
        data_sets = [data_set | {"path": data_set["path"]} for data_set in json.loads(train)]
    except (ValueError, TypeError, KeyError):
        raise UserError(f'{train}: write a list of data sets as [{{"path": FOLDER, "weight": NUMBER}}]') from None
    return json.dumps([data_set | {"path": str(stage(data_set["path"], to))} for data_set in data_sets])


if __name__ == "__main__":
    try:
        if len(sys.argv) != 3:
            raise UserError("give FOLDER, or a list of them, and TO")
        print(stage_all(*sys.argv[1:3]))
    except UserError as error:
        print(f"stage: {error}", file=sys.stderr)
        sys.exit(2)
