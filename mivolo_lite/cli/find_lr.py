"""``mivolo-lite find-lr``."""

from collections.abc import Sequence

from accelerate import PartialState

from mivolo_lite.cli.options import parse_known, parser_of
from mivolo_lite.distributed.heartbeat import ending_together
from mivolo_lite.experiments.lr_finder import curve_folder, find_lr
from mivolo_lite.ranges import float_range, int_range


def run(argv: Sequence[str]) -> None:
    """``find-lr --config FILE [options of train]``: search for a learning rate."""
    parser = parser_of("find-lr", run)
    parser.add_argument("--steps", type=int_range(10, 10**6), default=100, help="steps of the test")
    parser.add_argument("--low", type=float_range(0, 1e6, low_open=True), default=1e-6, help="first learning rate")
    parser.add_argument("--high", type=float_range(0, 1e6, low_open=True), default=1.0, help="last learning rate")
    options, words = parse_known(parser, argv, ["steps", "low", "high"])
    with ending_together():
        curve = find_lr(words, **options)
    if PartialState().is_main_process:
        print(
            f"the loss falls fastest at a learning rate of {curve.steepest:.1e}; train with that, or a few times less"
        )
        print(f"written to {curve_folder(words)}: lr.json, lr.png")
