"""``mivolo-lite crossval``."""

from collections.abc import Sequence

from mivolo_lite.cli.options import parse_known, parser_of
from mivolo_lite.cli.shared_options import TRAINING_OPTIONS, add_training_options
from mivolo_lite.ranges import int_range


def run(argv: Sequence[str]) -> None:
    """``crossval --config FILE --folds 5 [options of train]``: cross-validate a configuration over folds."""
    parser = parser_of("crossval", run)
    parser.add_argument("--folds", type=int_range(2, 1000), default=5, help="number of folds of `pack --folds`")
    add_training_options(parser)
    options, words = parse_known(parser, argv, ["folds", *TRAINING_OPTIONS])
    from mivolo_lite.experiments.crossval import cross_validate, crossval_table

    print(crossval_table(cross_validate(words, **options)))
