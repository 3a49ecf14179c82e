"""People whose images must come into the same split, since they are in one image."""

from collections.abc import Iterable

from mivolo_lite.connected import first_connected


def people_together(groups: Iterable[Iterable[str]]) -> dict[str, str]:
    """The name that all people have in common who are linked by images of several, over other people if need be.

    Args:
        groups: the people of each image that shows several.

    Returns:
        For each of them, the first person, by name, of all that are linked.
    """
    return first_connected((first, other) for first, *others in groups for other in others)
