"""Names by which a reader tells folders apart."""

import re
from collections.abc import Sequence

from mivolo_lite.errors import UserError


def short_names(folders: Sequence[str], option: str, dropped: str = "$") -> list[str]:
    """A name for each folder: its last two parts, or as many more as it takes to tell them apart."""
    parts = [re.findall(r"[\w.-]*\w[\w.-]*", re.sub(dropped, "", folder)) or ["data"] for folder in folders]
    for depth in range(2, max(map(len, parts)) + 2):
        names = ["-".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise UserError(f"{option} {' '.join(folders)}: one of them is given twice")
