"""``mivolo-lite ensemble``."""

from collections.abc import Sequence

from mivolo_lite.cli.combining import combining_parser, tell_next_step
from mivolo_lite.cli.options import parse


def run(argv: Sequence[str]) -> None:
    """``ensemble RUN/best RUN/best [...] --out DIR``: write one checkpoint that averages several models."""
    options = parse(combining_parser("ensemble", run, "two or more models of one method and one image size"), argv)
    from mivolo_lite.convert.ensemble import ensemble

    tell_next_step(ensemble(**options))
