"""``mivolo-lite soup``."""

from collections.abc import Sequence

from mivolo_lite.cli.combining import checkpoints_and_out, tell_next_step


def run(argv: Sequence[str]) -> None:
    """``soup RUN/best RUN/best [...] --out DIR``: one model whose weights are the mean of several fine-tuned ones."""
    checkpoints, out = checkpoints_and_out(argv, "soup", run, "two or more that started from the same weights")
    from mivolo_lite.convert.soup import soup

    tell_next_step(soup(checkpoints, out))
