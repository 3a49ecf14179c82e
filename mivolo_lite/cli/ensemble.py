"""``mivolo-lite ensemble``."""

from collections.abc import Sequence

from mivolo_lite.cli.combining import checkpoints_and_out, tell_next_step


def run(argv: Sequence[str]) -> None:
    """``ensemble RUN/best RUN/best [...] --out DIR``: one checkpoint that answers with the mean of several models."""
    checkpoints, out = checkpoints_and_out(argv, "ensemble", run, "two or more of one method and one image size")
    from mivolo_lite.convert.ensemble import ensemble

    tell_next_step(ensemble(checkpoints, out))
