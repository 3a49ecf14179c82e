"""``mivolo-lite audit``."""

from collections.abc import Sequence

from mivolo_lite.audit.audit import AuditOptions, audit, summary
from mivolo_lite.cli.options import parse, parser_of
from mivolo_lite.cli.shared_options import add_reading_workers


def run(argv: Sequence[str]) -> None:
    """``audit DIR [DIR ...]``: report duplicates, contradicting labels and poor images in indexed shards."""
    parser = parser_of("audit", run)
    parser.add_argument("folders", type=str, nargs="+", help="folders of indexed shards, such as train and val")
    parser.add_argument("--out", type=str, default="audit", help="folder for report.html, audit.json and the lists")
    parser.add_argument("--fix", type=str | None, default=None, help="exclusion list to write, of copies and bad crops")
    add_reading_workers(parser)
    names = parser.add_class_arguments(AuditOptions)
    options = parse(parser, argv)
    limits = AuditOptions(**{name: options.pop(name) for name in names})
    print(summary(audit(**options, options=limits)))
