"""``mivolo-lite calibrate``."""

from collections.abc import Sequence
from typing import Literal

from mivolo_lite.card import Tta
from mivolo_lite.cli.options import parse, parser_of
from mivolo_lite.cli.shared_options import add_estimating_options
from mivolo_lite.evaluation.calibration.conformal import BY
from mivolo_lite.ranges import float_range


def run(argv: Sequence[str]) -> None:
    """``calibrate --checkpoint RUN/best --data DIR``: add age intervals and a gender temperature to a checkpoint."""
    parser = parser_of("calibrate", run)
    parser.add_argument(
        "--checkpoint", type=str, required=True, help="the `best` folder of a run; its model.yaml changes"
    )
    parser.add_argument("--data", type=str, required=True, help="indexed shards that the model was not trained on")
    parser.add_argument(
        "--level", type=float_range(0, 1, low_open=True, high_open=True), default=0.9, help="coverage of the intervals"
    )
    parser.add_argument("--by", type=Literal[BY], default="all", help="one interval for all, or one for each subgroup")
    add_estimating_options(parser)
    parser.add_argument(
        "--out", type=str | None, default=None, help="write a calibrated copy, needed for hf://user/name"
    )
    parser.add_argument(
        "--tta", type=Tta | None, default=None, help="test-time augmentation; becomes the default in model.yaml"
    )
    options = parse(parser, argv)
    from mivolo_lite.distributed.accelerator import joined_processes
    from mivolo_lite.evaluation.calibration.calibrate import calibrate, calibration_table, card_path

    with joined_processes() as accelerator:
        calibration = calibrate(**options)
    if accelerator.is_main_process:
        print(calibration_table(calibration))
        print(f"\nwritten to {card_path(options['checkpoint'], options['out'])}")
