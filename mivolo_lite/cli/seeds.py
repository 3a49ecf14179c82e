"""``mivolo-lite seeds``."""

from collections.abc import Sequence

from mivolo_lite.cli.options import parse_known, parser_of
from mivolo_lite.cli.shared_options import TRAINING_OPTIONS, add_training_options
from mivolo_lite.ranges import int_range


def run(argv: Sequence[str]) -> None:
    """``seeds --config FILE --seeds 3 [options of train]``: report the mean over several seeds."""
    parser = parser_of("seeds", run)
    parser.add_argument("--seeds", type=int_range(2, 1000), default=3, help="number of seeds: 0, 1, 2, ...")
    add_training_options(parser)
    options, words = parse_known(parser, argv, ["seeds", *TRAINING_OPTIONS])
    from mivolo_lite.experiments.seeds import seeds_table, train_seeds

    print(seeds_table(train_seeds(words, **options)))
