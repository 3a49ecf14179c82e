"""What lies in packed shards."""

import json
import os

from mivolo_lite.shards.index import ShardIndex


def labels_of(index: ShardIndex) -> list[dict]:
    """The JSON of every sample."""
    return [json.loads(data) for data in members_of(index, "labels")]


def members_of(index: ShardIndex, name: str) -> list[bytes]:
    """The bytes of every sample's member: face, body or labels."""
    shards, offsets, sizes = (index.columns[column].tolist() for column in ("shard", f"{name}_offset", f"{name}_size"))
    members = []
    for shard, offset, size in zip(shards, offsets, sizes, strict=True):
        with open(index.shard_path(shard), "rb") as file:
            members.append(os.pread(file.fileno(), size, offset))
    return members
