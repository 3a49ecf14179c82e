"""``mivolo-lite ensemble``."""

from collections.abc import Sequence

from mivolo_lite.cli.combining import combine
from mivolo_lite.convert.ensemble import ensemble


def run(argv: Sequence[str]) -> None:
    """``ensemble RUN/best RUN/best [...] --out DIR``: one checkpoint that answers with the mean of several models."""
    combine(argv, "ensemble", run, ensemble, "two or more of one method and one image size")
