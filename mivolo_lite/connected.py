"""The connected components of a graph."""

from collections.abc import Iterable
from typing import TypeVar

Item = TypeVar("Item", str, int, bytes)


def first_connected(pairs: Iterable[tuple[Item, Item]]) -> dict[Item, Item]:
    """For each item of any pair, the smallest item of its component.

    Items are sorted, so that pairs from a set, whose order differs between processes, give the same dict.
    """
    parent: dict[Item, Item] = {}

    def root(item: Item) -> Item:
        while parent.setdefault(item, item) != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for first, second in pairs:
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    return {item: root(item) for item in sorted(parent)}
