"""Photos that must come into the same split, since they show the same people."""

from collections.abc import Iterable


def kept_together(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The name that all photos have in common which are linked by people, over other photos if need be.

    Args:
        pairs: (photo, person) for each that is known.

    Returns:
        For each photo, the first person, by name, of all that it is linked with.
    """
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    photos = {}
    for photo, person in pairs:
        photos[photo] = ("person", person)
        first, second = sorted((root(("person", person)), root(("photo", photo))))
        parent[second] = first  # people sort before photos
    return {photo: root(node)[1] for photo, node in photos.items()}
