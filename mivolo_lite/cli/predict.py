"""``mivolo-lite predict``."""

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mivolo_lite import __version__
from mivolo_lite.cli.options import parse, parser_of
from mivolo_lite.cli.shared_options import add_predictor_options, add_tta
from mivolo_lite.credentials import without_credentials
from mivolo_lite.errors import UserError
from mivolo_lite.inference.defaults import FORMER_NAMES, MIN_SCORE, NONE, RULE, YUNET
from mivolo_lite.output import complain, printable
from mivolo_lite.ranges import float_range, int_range
from mivolo_lite.wording import count_of

if TYPE_CHECKING:
    from mivolo_lite.inference.boxes import BoxesFile
    from mivolo_lite.inference.predictor import Predictor
    from mivolo_lite.inference.resuming import Processes
    from mivolo_lite.inference.sources import Item

_DETECTION = {"detector": (YUNET, *FORMER_NAMES), "min_score": (MIN_SCORE,)}
"""Options of finding faces, with the values that ask for nothing else."""


def run(argv: Sequence[str]) -> None:
    """``predict SOURCE ... [--out DIR]``: ages and genders of everybody in images and videos."""
    parser = parser_of("predict", run)
    parser.add_argument(
        "sources",
        type=str,
        nargs="+",
        help="images, videos, folders, patterns, URLs, folders of packed shards, or a .txt with one of these a line",
    )
    parser.add_argument("--out", type=str | None, default=None, help="folder for predictions.csv and predictions.jsonl")
    parser.add_argument("--draw", type=bool, default=False, nargs="?", const=True, help="also draw boxes and ages")
    parser.add_argument(
        "--report", type=bool, default=False, nargs="?", const=True, help="also write report.html with faces and ages"
    )
    parser.add_argument("--boxes", type=str | None, default=None, help="table of boxes, in place of the detectors")
    add_predictor_options(parser)
    parser.add_argument(
        "--min_score", type=float_range(0, 1), default=MIN_SCORE, help="lowest detector score of a face"
    )
    parser.add_argument("--half", type=bool | None, default=None, help="half precision; on CUDA GPUs by default")
    parser.add_argument("--compile", type=bool, default=False, help="compile the model, for thousands of photos")
    add_tta(parser)
    parser.add_argument("--batch", type=int_range(1, 10**4), default=32, help="people in one forward pass")
    parser.add_argument("--stride", type=int_range(1, 10**6), default=1, help="read every n-th frame of videos")
    options = parse(parser, argv)
    _check(options)
    if options["out"] is None:
        with tempfile.TemporaryDirectory() as folder:
            _predict(options, Path(folder), to_terminal=True)
    else:
        _predict(options, Path(options["out"]), to_terminal=False)


def _check(options: Mapping[str, Any]) -> None:
    """Raise UserError for options that would do nothing."""
    for name in ("draw", "report"):
        if options[name] and options["out"] is None:
            raise UserError(f"predict: --{name} needs a folder for what it writes; give --out DIR")
    usual = _DETECTION | {"persons": (RULE, NONE)}
    if options["boxes"] is not None and (names := _changed(options, usual)):
        raise UserError(
            f"predict: --{names[0]} does nothing beside --boxes, which takes the detectors' place; leave one out"
        )


def _changed(options: Mapping[str, Any], usual: Mapping[str, tuple]) -> list[str]:
    """Names of the options that have none of their usual values."""
    return [name for name, values in usual.items() if options[name] not in values]


def _find_items(options: Mapping[str, Any], out: Path) -> tuple[list["Item"], list[str]]:
    """The work, and notes on what is left out of it. Raises UserError for options that do nothing for it."""
    from mivolo_lite.inference.partial_results import UNFINISHED
    from mivolo_lite.inference.result_files import ANNOTATED, PREDICTIONS
    from mivolo_lite.inference.sources import find_items

    candidates, others = find_items(options["sources"])
    annotated = os.path.realpath(out / ANNOTATED)
    items = [item for item in candidates if os.path.dirname(os.path.realpath(item.address)) != annotated]
    if not items:
        raise UserError(f"predict: all images are in {annotated}, where the results go; give another --out")
    usual = {"boxes": (None,), "draw": (False,), "report": (False,), "persons": (RULE,)} | _DETECTION
    if all(item.kind == "shards" for item in items) and (names := _changed(options, usual)):
        raise UserError(f"predict: --{names[0]} does nothing for shards, which hold crops; leave it out")
    notes = []
    if options["stride"] > 1 and not any(item.kind == "video" for item in items):
        notes.append("--stride is of videos, and there is none")
    if (out / f"{PREDICTIONS}.csv").exists() and not (out / UNFINISHED).exists():
        notes.append(f"the results of an earlier run in {out} are replaced")
    if left_out := len(candidates) - len(items):
        notes.append(f"left out: {left_out} results of an earlier run in {annotated}")
    if options["draw"] and os.path.isdir(annotated) and os.listdir(annotated):
        notes.append(f"{annotated} holds files of an earlier run; those of other names stay there")
    if unlisted := [f"{item.name}: {item.reason}" for item in items if item.reason]:
        notes.append(f"nothing is read of {count_of(len(unlisted), 'folder')}, the first of which is {unlisted[0]}")
    if others:
        notes.append(f"left out: {len(others)} that are neither images nor videos, the first of which is {others[0]}")
    return items, notes


def _predict(options: dict, out: Path, to_terminal: bool) -> None:
    from mivolo_lite.inference.frames import import_av

    items, notes = _find_items(options, out)
    if all(item.kind == "video" for item in items):
        import_av()  # beside photos, videos that need it are listed as rejected
    with _processes() as processes:
        if to_terminal and processes.world_size > 1:
            raise UserError("predict: several processes need a folder for their results; give --out DIR")
        _estimate(items, notes, options, out, to_terminal, processes)


def _estimate(
    items: list["Item"], notes: list[str], options: dict, out: Path, to_terminal: bool, processes: "Processes"
) -> None:
    from mivolo_lite.inference.boxes import BoxesFile
    from mivolo_lite.inference.predict import predict
    from mivolo_lite.inference.predictor import Predictor
    from mivolo_lite.inference.result_files import ANNOTATED
    from mivolo_lite.inference.resuming import Unfinished
    from mivolo_lite.inference.work import PredictOptions

    boxes = None
    if options["boxes"] is not None:
        boxes = BoxesFile(Path(options["boxes"]))
        files = (item.address for item in items if item.kind != "shards" and not item.reason)
        notes += filter(None, [boxes.check(files)])
    names = ("persons", "device", "batch", "half", "compile", "min_score", "tta")
    predictor = Predictor.load(
        options["checkpoint"],
        detector=None if boxes or all(item.kind == "shards" for item in items) else options["detector"],
        **{name: options[name] for name in names},
    )
    annotated = out / ANNOTATED if options["draw"] else None
    reading = PredictOptions(boxes, annotated, options["stride"], options["batch"])
    if processes.rank == 0:
        for note in [*notes, *predictor.notes]:
            complain(printable(f"note: {note}"))
    try:
        counts = predict(predictor, items, out, reading, _settings(options, predictor, boxes), processes)
    except Unfinished as unfinished:
        if unfinished.written is not None:
            _report(out, unfinished.written, options["draw"], to_terminal)
        raise unfinished.explained(resumes=not to_terminal) from None
    if counts is None:
        return
    if options["report"]:
        from mivolo_lite.inference.report import write_report

        write_report(out, items, {"Checkpoint": without_credentials(options["checkpoint"] or "the package's own")})
    _report(out, counts, options["draw"], to_terminal)


def _settings(options: Mapping[str, Any], predictor: "Predictor", boxes: "BoxesFile | None") -> dict[str, Any]:
    """All that the results depend on beside the photos themselves."""
    names = ("detector", "persons", "min_score", "stride", "draw")
    return {
        "command": "predict",
        "version": __version__,
        "model": predictor.estimator.fingerprint(),
        "tta": predictor.estimator.tta,
        "half": predictor.answers.half,
        "boxes": None if boxes is None else boxes.digest,
        **{name: options[name] for name in names},
    }


@contextmanager
def _processes() -> Iterator["Processes"]:
    from mivolo_lite.inference.resuming import Processes

    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield Processes()
        return
    from mivolo_lite.distributed.accelerator import joined_processes

    with joined_processes() as accelerator:
        yield Processes(accelerator.process_index, accelerator.num_processes, accelerator.wait_for_everyone)


def _report(out: Path, counts: dict[str, int], has_annotated: bool, to_terminal: bool) -> None:
    import json

    from mivolo_lite.inference.result_files import ANNOTATED, PREDICTIONS, RESULT_FILES, TRACKS
    from mivolo_lite.inference.rows import describe, describe_track
    from mivolo_lite.shards.rejects import REJECTED_FILE

    if to_terminal:
        with open(out / f"{PREDICTIONS}.jsonl", encoding="utf-8") as file:
            rows = (row for row in map(json.loads, file) if "frame" not in row)  # videos are told by their tracks
            sys.stdout.writelines(printable(describe(row)) + "\n" for row in rows)
        if (tracks := out / f"{TRACKS}.jsonl").exists():
            with open(tracks, encoding="utf-8") as file:
                sys.stdout.writelines(printable(describe_track(json.loads(line))) + "\n" for line in file)
        with open(out / REJECTED_FILE, encoding="utf-8") as file:
            for line in map(json.loads, file):
                complain(printable(f"{line['image']}: {line['reason']}"))
        return
    print(f"{count_of(counts['rows'], 'row')}, {counts['rejected']} rejected")
    files = [name for name in RESULT_FILES if (out / name).exists()]
    print(f"written to {out}: {', '.join([*files, *([ANNOTATED] if has_annotated else [])])}")
