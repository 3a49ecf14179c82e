"""Options of the commands that start several trainings."""

from jsonargparse import ArgumentParser

from mivolo_lite.card import Tta
from mivolo_lite.ranges import int_range

TRAINING_OPTIONS = ("launcher", "workers", "tta")


def add_training_options(parser: ArgumentParser) -> None:
    """How each training is started, and its evaluation."""
    parser.add_argument(
        "--launcher",
        type=str,
        default="",
        help='what starts each training, as in "accelerate launch --num_processes 4 -m mivolo_lite"',
    )
    parser.add_argument("--workers", type=int_range(0, 1024), default=2, help="decoding processes of the evaluations")
    parser.add_argument("--tta", type=Tta | None, default=None, help="`flip` also evaluates on the mirror images")
