"""Options that several commands have."""

import os

from jsonargparse import ArgumentParser

from mivolo_lite.card import Tta
from mivolo_lite.inference.defaults import RULE, YUNET
from mivolo_lite.ranges import int_range

TRAINING_OPTIONS = ("launcher", "workers", "tta")


def add_training_options(parser: ArgumentParser) -> None:
    """Options of the trainings and their evaluations."""
    parser.add_argument(
        "--launcher",
        type=str,
        default="",
        help='command that starts each training, as in "accelerate launch --num_processes 4 -m mivolo_lite"',
    )
    parser.add_argument("--workers", type=int_range(0, 1024), default=2, help="decoding processes of the evaluations")
    parser.add_argument(
        "--tta",
        type=Tta | None,
        default=None,
        help="test-time augmentation: `flip` averages with the mirror image, `multiscale` also over three sizes",
    )


def add_estimating_options(parser: ArgumentParser) -> None:
    """Options of estimating the samples of a data set."""
    parser.add_argument("--batch", type=int_range(1, 10**6), default=128, help="samples in one forward pass")
    parser.add_argument("--workers", type=int_range(0, 1024), default=2, help="decoding processes")
    add_exclude(parser)
    parser.add_argument(
        "--folds", type=list[int] | None, default=None, help="use only these folds of the data, as in [4]"
    )


def add_predictor_options(parser: ArgumentParser) -> None:
    """Which model estimates the people in photos, what finds them, and where both run."""
    parser.add_argument(
        "--checkpoint", type=str | None, default=None, help="the `best` folder of a run; the package's own by default"
    )
    parser.add_argument("--detector", type=str, default=YUNET, help=f"face detector: {YUNET}, or a file")
    parser.add_argument(
        "--persons", type=str, default=RULE, help="body detector: rule (from faces), none, a name, or a file"
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, mps, ...")


def add_tta(parser: ArgumentParser) -> None:
    """Test-time augmentation, in place of the checkpoint's own."""
    parser.add_argument(
        "--tta",
        type=Tta | None,
        default=None,
        help="`flip` averages with the mirror image, `multiscale` also over three sizes; default: as in model.yaml",
    )


def add_reading_workers(parser: ArgumentParser) -> None:
    """How many processes read images or shards."""
    parser.add_argument("--workers", type=int_range(1, 1024), default=os.cpu_count(), help="reading processes")


def add_exclude(parser: ArgumentParser) -> None:
    """Which samples are left out."""
    parser.add_argument("--exclude", type=str | None, default=None, help="list of samples to leave out, one key a line")
