"""Pictures that belong into one part of a data set, since they show the same people."""

from collections.abc import Iterable


def kept_together(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The name that all pictures have in common which are linked by people, over other pictures if need be.

    Args:
        pairs: (picture, person) for each that is known.

    Returns:
        For each picture, the first person, by name, of all that it is linked with.
    """
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    pictures = {}
    for picture, person in pairs:
        pictures[picture] = ("person", person)
        one, other = sorted((root(("person", person)), root(("picture", picture))))
        parent[other] = one  # people sort before pictures
    return {picture: root(node)[1] for picture, node in pictures.items()}
