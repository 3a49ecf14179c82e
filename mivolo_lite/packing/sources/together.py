"""People whose images must come into the same split, since they are in one image."""

from collections.abc import Iterable


def people_together(groups: Iterable[Iterable[str]]) -> dict[str, str]:
    """The name that all people have in common who are linked by images of several, over other people if need be.

    Args:
        groups: the people of each image that shows several.

    Returns:
        For each of them, the first person, by name, of all that are linked.
    """
    parent: dict[str, str] = {}

    def root(person: str) -> str:
        while parent.setdefault(person, person) != person:
            parent[person] = parent[parent[person]]
            person = parent[person]
        return person

    for group in groups:
        first, *others = group
        for other in others:
            low, high = sorted((root(first), root(other)))
            parent[high] = low
    return {person: root(person) for person in parent}
