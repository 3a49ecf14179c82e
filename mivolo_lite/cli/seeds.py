"""``mivolo-lite seeds``."""

from collections.abc import Sequence

from mivolo_lite.cli.options import parse_known, parser_of
from mivolo_lite.experiments.seeds import seeds_table, train_seeds
from mivolo_lite.ranges import int_range

OPTIONS = ("seeds", "launcher", "workers")


def run(argv: Sequence[str]) -> None:
    """``seeds --config FILE --seeds 3 [options of train]``: trainings that differ in the seed; mean and spread."""
    parser = parser_of("seeds", run)
    parser.add_argument("--seeds", type=int_range(2, 1000), default=3, help="trainings: seeds 0, 1, 2, ...")
    parser.add_argument(
        "--launcher",
        type=str,
        default="",
        help='what starts each training, as in "accelerate launch --num_processes 4 -m mivolo_lite"',
    )
    parser.add_argument("--workers", type=int_range(0, 1024), default=2, help="decoding processes of the evaluations")
    options, words = parse_known(parser, argv, OPTIONS)
    print(seeds_table(train_seeds(words, **options)))
