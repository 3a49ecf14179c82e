"""``mivolo-lite index``."""

from collections.abc import Sequence

from mivolo_lite.cli.options import parse, parser_of
from mivolo_lite.cli.shared_options import add_exclude, add_reading_workers
from mivolo_lite.inference.framing import record_framing
from mivolo_lite.ranges import float_range
from mivolo_lite.shards.exclude import left_out_line, read_exclusions
from mivolo_lite.shards.rejects import REJECTED_FILE
from mivolo_lite.shards.scan import index_shards
from mivolo_lite.shards.summary import content_of, left_out_of


def run(argv: Sequence[str]) -> None:
    """``index DIR``: index shards that somebody else wrote."""
    parser = parser_of("index", run)
    parser.add_argument("folder", type=str, help="folder of uncompressed .tar shards")
    add_reading_workers(parser)
    parser.add_argument("--max_reject_rate", type=float_range(0, 1), default=0.01, help="largest share of rejects")
    add_exclude(parser)
    options = parse(parser, argv)
    options["exclude"] = read_exclusions(options["exclude"])
    index = index_shards(**options)
    print(f"{index.folder}: {content_of(index)}, {index.info['rejected']} rejected")
    for note in left_out_of(index):
        print(note)
    if framing := record_framing([index]):
        print(framing)
    if index.info["rejected"]:
        print(f"the rejected are listed in {index.folder}/{REJECTED_FILE}")
    if options["exclude"]:
        excluded, unmatched = (index.info[name] for name in ("excluded", "exclude_unmatched"))
        print(left_out_line(excluded, options["exclude"], unmatched))
