"""``mivolo-lite soup``."""

from collections.abc import Sequence

from mivolo_lite.cli.combining import combine
from mivolo_lite.convert.soup import soup


def run(argv: Sequence[str]) -> None:
    """``soup RUN/best RUN/best [...] --out DIR``: one model whose weights are the mean of several fine-tuned ones."""
    combine(argv, "soup", run, soup, "two or more that started from the same weights")
