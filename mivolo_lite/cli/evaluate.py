"""``mivolo-lite evaluate``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from jsonargparse import ArgumentParser

from mivolo_lite.cli.options import parse, parser_of
from mivolo_lite.cli.shared_options import add_estimating_options, add_tta
from mivolo_lite.errors import UserError
from mivolo_lite.evaluation.nist import LEGAL_AGES
from mivolo_lite.labels import MAX_AGE, MIN_AGE
from mivolo_lite.option_help import describe_section
from mivolo_lite.ranges import checked_options, checked_type, int_range
from mivolo_lite.reporting.plot_folder import FORMATS
from mivolo_lite.shards.cache import CacheConfig


def run(argv: Sequence[str]) -> None:
    """``evaluate --checkpoint RUN/best [...] --data DIR [...] --out OUT``: evaluate every pair."""
    parser = parser_of("evaluate", run)
    _add_options(parser)
    options = parse(parser, argv)
    options["cache"] = CacheConfig(**vars(options["cache"]))
    if options["to_trackers"] and not len(options["checkpoint"]) == len(options["data"]) == 1:
        raise UserError("--to_trackers: give one checkpoint and one data set")
    from mivolo_lite.distributed.accelerator import joined_processes

    with joined_processes() as accelerator:
        _evaluate(options, accelerator.is_main_process)


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        type=str,
        nargs="+",
        required=True,
        help="`best` folders of runs; `default` is the package's own checkpoint",
    )
    parser.add_argument("--data", type=str, nargs="+", required=True, help="folders or URLs of indexed shards")
    parser.add_argument(
        "--out", type=str, required=True, help="folder for metrics.json, predictions.csv and the report"
    )
    parser.add_argument("--inputs", type=str, help="inputs to evaluate separately: a list of face, body and both")
    add_estimating_options(parser)
    parser.add_argument("--report", type=bool, default=True, help="`no` writes no report.html and no plots")
    parser.add_argument("--figures", type=Literal[FORMATS], default="png", help="file format of plots/")
    parser.add_argument(
        "--legal_ages",
        type=checked_type(list[Annotated[int, int_range(MIN_AGE, MAX_AGE)]]),
        default=list(LEGAL_AGES),
        help="legal ages of the challenge-age curves",
    )
    parser.add_argument(
        "--robustness",
        type=bool,
        default=False,
        help="also evaluate on 10 corruptions at 5 strengths: 51 forward passes of each sample",
    )
    parser.add_argument(
        "--robustness_samples", type=int_range(1) | None, help="random samples for --robustness; default: all"
    )
    add_tta(parser)
    parser.add_argument(
        "--to_trackers",
        type=bool,
        default=False,
        help="upload the files to the checkpoint's run in Weights & Biases or MLflow",
    )
    parser.add_class_arguments(checked_options(CacheConfig), "cache")
    describe_section(parser._option_string_actions["--cache"])


def _evaluate(options: dict, is_main_process: bool) -> None:
    from mivolo_lite.evaluation.evaluate import evaluate
    from mivolo_lite.evaluation.matrix import evaluate_all, matrix_table
    from mivolo_lite.evaluation.table import metrics_table
    from mivolo_lite.training.trackers import log_report, tracked_run

    checkpoints, data, to_trackers = (options.pop(name) for name in ("checkpoint", "data", "to_trackers"))
    tracked = tracked_run(Path(checkpoints[0])) if to_trackers else None  # before hours of evaluation
    if len(checkpoints) == len(data) == 1:
        metrics = evaluate(*checkpoints, *data, **options)
        table, sets = metrics_table(metrics), [metrics["data"]]
    else:
        matrix = evaluate_all(checkpoints, data, **options)
        table, sets = matrix_table(matrix), list(matrix["data"].values())
    if is_main_process:
        _report(table, sets if options["exclude"] else [], options)
        if tracked is not None:
            print(f"given to {' and '.join(log_report(tracked, Path(options['out'])))}")


def _report(table: str, selected: Sequence[dict], options: dict) -> None:
    """Print the table, how many samples of the selected data sets were left out, and where the files are."""
    print(table)
    for data in selected:
        print(f"{data['folder']}: {data['excluded']} samples left out, as {options['exclude']} says")
    print(f"\nwritten to {options['out']}: {', '.join(sorted(path.name for path in Path(options['out']).iterdir()))}")
