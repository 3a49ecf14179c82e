"""The command lines: ``mivolo-lite pack | index | audit | train | evaluate | calibrate | compare | convert``."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from inspect import signature
from math import isfinite
from pathlib import Path
from typing import Any, Literal, NoReturn

from jsonargparse import ArgumentError, ArgumentParser

from mivolo_lite.errors import UserError, in_one_line
from mivolo_lite.output import complain
from mivolo_lite.paths import expand_path, local_path
from mivolo_lite.ranges import Probability, float_range, int_range

_INPUTS, _OUTPUTS = ("checkpoint", "data", "exclude", "folder", "folders", "source"), ("out", "fix")
"""Options that are paths; the sources' own have the type Path."""


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``mivolo-lite``; what is no fault of this program is one line, with exit code 2 for a user's.

    Args:
        argv: a command and its options. Without it, those that this process was started with: training then listens to
            signals, and shares the CPUs out.
    """
    if argv is None and sys.argv[1:2] == ["train"]:
        _begin_training()
    argv = list(sys.argv[1:] if argv is None else argv)
    usage = f"usage: mivolo-lite {{{','.join(COMMANDS)}}} ...\nmivolo-lite COMMAND --help tells a command's options"
    if not argv or argv[0] in ("-h", "--help"):
        print(usage)
        return
    try:
        if argv[0] not in COMMANDS:
            raise UserError(f"{argv[0]}: no such command; there are {', '.join(COMMANDS)}")
        COMMANDS[argv[0]](argv[1:])
    except KeyboardInterrupt:
        _end("interrupted", 128 + signal.SIGINT)
    except Exception as error:
        explained = in_one_line(error)
        if explained is None:
            raise
        _end(str(explained), explained.exit_code)


def _begin_training() -> None:
    """What a process that trains does before torch is imported."""
    from mivolo_lite.affinity import spread_over_cpus
    from mivolo_lite.training.preemption import listen

    listen()
    spread_over_cpus()


def _end(line: str, code: int) -> NoReturn:
    complain(f"mivolo-lite: {_printable(line)}")
    sys.exit(code)


def _printable(line: str) -> str:
    """One line that moves no cursor and clears no screen, whatever names and values it quotes."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in " ".join(line.split())
    )


def pack_command(argv: Sequence[str]) -> None:
    """``pack SOURCE --out OUT ...``: pictures become shards."""
    from mivolo_lite.data.exclude import read_exclusions
    from mivolo_lite.data.pack import pack, parse_split
    from mivolo_lite.data.parts import Part, pack_part
    from mivolo_lite.data.sources import SOURCES
    from mivolo_lite.data.summary import content_of

    if not argv or argv[0] not in SOURCES:
        if argv and argv[0] not in ("-h", "--help"):
            raise UserError(f"pack: no source {argv[0]!r}; there are {', '.join(SOURCES)}")
        print(f"usage: pack {{{','.join(SOURCES)}}} --out OUT ...\npack SOURCE --help tells a source's options")
        return
    parser = _parser(f"pack {argv[0]}", pack_command)
    parser.add_argument("--out", type=str, required=True, help="folder that appears when all is done")
    parser.add_argument("--split", type=str, default="train=0.9,val=0.1", help="share of the pictures by split")
    parser.add_argument("--samples_per_shard", type=int_range(1), default=1000)
    parser.add_argument("--seed", type=int_range(0, 2**63 - 1), default=0, help="of the split and the mixing")
    parser.add_argument("--workers", type=int_range(1, 1024), default=os.cpu_count())
    parser.add_argument("--max_reject_rate", type=Probability, default=0.01, help="share of unusable pictures")
    parser.add_argument("--exclude", type=str | None, default=None, help="list of samples to leave out, one a line")
    parser.add_argument("--part", type=str, help="as in 3/16: read this part; the last command to finish writes OUT")
    source_options = parser.add_class_arguments(SOURCES[argv[0]], skip={"seed"})
    options = _parse(parser, argv[1:])
    options["split"] = parse_split(options["split"])
    options["exclude"] = read_exclusions(options["exclude"])
    own = {name: options.pop(name) for name in source_options}
    if "seed" in signature(SOURCES[argv[0]]).parameters:
        own["seed"] = options["seed"]
    source = SOURCES[argv[0]](**own)
    part = options.pop("part")
    packed = pack_part(source, part=Part.parse(part), **options) if part else pack(source, **options)
    if packed is None:
        print(f"part {part} is read; {options['out']} appears when the last one is")
        return
    for name, index in packed.splits.items():
        print(f"{name}: {content_of(index)}: {index.folder}")
    for note in packed.notes:
        print(note)
    if packed.rejected:
        first = packed.rejected[0]
        print(
            f"{len(packed.rejected)} pictures rejected, listed in {Path(options['out']) / 'rejected.jsonl'}; "
            f"the first is {first['picture']}: {first['reason']}"
        )
    if options["exclude"]:
        print(f"{packed.excluded} samples left out, of {len(options['exclude'])} names to leave out")


def index_command(argv: Sequence[str]) -> None:
    """``index DIR``: an index for shards that somebody else wrote."""
    from mivolo_lite.data.exclude import read_exclusions
    from mivolo_lite.data.rejects import REJECTED_FILE
    from mivolo_lite.data.scan import index_shards
    from mivolo_lite.data.summary import content_of, left_out_of

    parser = _parser("index", index_command)
    parser.add_argument("folder", type=str, help="folder of uncompressed .tar shards")
    parser.add_argument("--workers", type=int_range(1, 1024), default=os.cpu_count())
    parser.add_argument("--max_reject_rate", type=Probability, default=0.01, help="share of unusable samples")
    parser.add_argument("--exclude", type=str | None, default=None, help="list of samples to leave out, one a line")
    options = _parse(parser, argv)
    options["exclude"] = read_exclusions(options["exclude"])
    index = index_shards(**options)
    print(f"{index.folder}: {content_of(index)}, {index.info['rejected']} rejected")
    for note in left_out_of(index):
        print(note)
    if index.info["rejected"]:
        print(f"the rejected are listed in {index.folder / REJECTED_FILE}")
    if options["exclude"]:
        print(f"{index.info.get('excluded', 0)} samples left out, of {len(options['exclude'])} names to leave out")


def audit_command(argv: Sequence[str]) -> None:
    """``audit DIR [DIR ...]``: copies, contradicting labels and poor pictures in indexed shards, as a page."""
    from mivolo_lite.audit.audit import AuditOptions, audit, summary

    parser = _parser("audit", audit_command)
    parser.add_argument("folders", type=str, nargs="+", help="folders of indexed shards, such as train and val")
    parser.add_argument("--out", type=str, default="audit", help="folder for report.html, audit.json and the lists")
    parser.add_argument("--fix", type=str | None, default=None, help="file to write, for `pack --exclude`")
    parser.add_argument("--workers", type=int_range(1, 1024), default=os.cpu_count())
    names = parser.add_class_arguments(AuditOptions)
    options = _parse(parser, argv)
    limits = AuditOptions(**{name: options.pop(name) for name in names})
    print(summary(audit(**options, options=limits)))


def train_command(argv: Sequence[str]) -> None:
    """``train --config FILE ...``: what ``train.py`` does."""
    from mivolo_lite.config import help_text, read_run_config
    from mivolo_lite.training.heartbeat import ending_together
    from mivolo_lite.training.loop import Trainer
    from mivolo_lite.training.preemption import EXIT_CODE

    if "-h" in argv or "--help" in argv:
        print(help_text(argv))
        return
    config = read_run_config(argv)
    with ending_together():
        complete = Trainer(config).train()
    if not complete:
        sys.exit(EXIT_CODE)


def evaluate_command(argv: Sequence[str]) -> None:
    """``evaluate --checkpoint RUN/best [...] --data DIR [...] --out OUT``: of several, every pair and the matrix."""
    from accelerate import PartialState

    from mivolo_lite.data.cache import CacheConfig
    from mivolo_lite.data.labels import MAX_AGE, MIN_AGE
    from mivolo_lite.evaluation.evaluate import evaluate
    from mivolo_lite.evaluation.matrix import evaluate_all, matrix_table
    from mivolo_lite.evaluation.nist import LEGAL_AGES
    from mivolo_lite.evaluation.table import metrics_table

    parser = _parser("evaluate", evaluate_command)
    parser.add_argument(
        "--checkpoint", type=str, nargs="+", required=True, help="the `best` folders of one run or more"
    )
    parser.add_argument(
        "--data", type=str, nargs="+", required=True, help="folders of indexed shards, or their URLs, one or more"
    )
    parser.add_argument(
        "--out", type=str, required=True, help="folder for metrics.json, predictions.csv and the report"
    )
    parser.add_argument("--inputs", type=str, help="of face, body, both: one column of results for each, side by side")
    parser.add_argument("--batch", type=int_range(1, 10**6), default=128, help="samples of one forward pass")
    parser.add_argument("--workers", type=int_range(0, 1024), default=2, help="decoding processes")
    parser.add_argument("--report", type=bool, default=True, help="`no` writes no report.html and no plots")
    parser.add_argument(
        "--legal_ages",
        type=list[int_range(MIN_AGE, MAX_AGE)],
        default=list(LEGAL_AGES),
        help="of the challenge-age curves",
    )
    parser.add_argument(
        "--robustness",
        type=bool,
        default=False,
        help="`yes` also estimates from pictures made worse in 10 ways, at 5 strengths each: 51 passes of each sample",
    )
    parser.add_argument(
        "--robustness_samples", type=int_range(1) | None, help="of so many samples alone, drawn at random"
    )
    parser.add_argument("--exclude", type=str | None, default=None, help="list of samples to leave out, by their keys")
    parser.add_class_arguments(CacheConfig, "cache")
    options = _parse(parser, argv)
    options["cache"] = CacheConfig(**vars(options["cache"]))
    checkpoints, data = options.pop("checkpoint"), options.pop("data")
    if len(checkpoints) == len(data) == 1:
        metrics = evaluate(*checkpoints, *data, **options)
        table, sets = metrics_table(metrics), [metrics["data"]]
    else:
        matrix = evaluate_all(checkpoints, data, **options)
        table, sets = matrix_table(matrix), matrix["data"].values()
    if not PartialState().is_main_process:
        return
    print(table)
    for each in sets if options["exclude"] else ():
        print(f"{each['folder']}: {each['excluded']} samples left out, as {options['exclude']} says")
    print(f"\nwritten to {options['out']}: {', '.join(sorted(path.name for path in Path(options['out']).iterdir()))}")


def calibrate_command(argv: Sequence[str]) -> None:
    """``calibrate --checkpoint RUN/best --data DIR``: age intervals and a gender temperature into the checkpoint."""
    from mivolo_lite.evaluation.calibrate import calibrate, calibration_table
    from mivolo_lite.evaluation.conformal import BY

    parser = _parser("calibrate", calibrate_command)
    parser.add_argument(
        "--checkpoint", type=str, required=True, help="the `best` folder of a run; its model.yaml changes"
    )
    parser.add_argument("--data", type=str, required=True, help="folder of indexed shards that were not trained on")
    parser.add_argument(
        "--level",
        type=float_range(0, 1, low_open=True, high_open=True),
        default=0.9,
        help="share of true ages inside their interval",
    )
    parser.add_argument("--by", type=Literal[BY], default="all", help="one interval for all, or one for each kind")
    parser.add_argument("--batch", type=int_range(1, 10**6), default=128, help="samples of one forward pass")
    parser.add_argument("--workers", type=int_range(0, 1024), default=2, help="decoding processes")
    options = _parse(parser, argv)
    print(calibration_table(calibrate(**options)))
    print(f"\nwritten to {Path(options['checkpoint']) / 'model.yaml'}")


def compare_command(argv: Sequence[str]) -> None:
    """``compare A B ...``: evaluations of the same pictures against the first, and whether that is more than noise."""
    from mivolo_lite.evaluation.compare import compare, comparison_table

    parser = _parser("compare", compare_command)
    parser.add_argument("folders", type=str, nargs="+", help="folders that `evaluate` wrote")
    print(comparison_table(compare(_parse(parser, argv)["folders"])))


def convert_command(argv: Sequence[str]) -> None:
    """``convert official.pth.tar OUT``, or ``convert RUN/best official.pth.tar``: MiVOLO's or SwinFace's layout."""
    from mivolo_lite.convert import convert

    parser = _parser("convert", convert_command)
    parser.add_argument("source", type=str, help="a published file, or the `best` folder of such a model")
    parser.add_argument("out", type=str, help="the folder, or the file, to write")
    options = _parse(parser, argv)
    print(f"written to {convert(**options)}")


def _parser(command: str, function: Callable) -> ArgumentParser:
    return ArgumentParser(prog=f"mivolo-lite {command}", description=function.__doc__, exit_on_error=False)


def _parse(parser: ArgumentParser, argv: Sequence[str]) -> dict:
    """The options by name, paths expanded. Dashes and underscores in their names are the same."""
    command = parser.prog.removeprefix("mivolo-lite ")
    try:
        options = vars(parser.parse_args([_underscored(word) if word.startswith("--") else word for word in argv]))
    except (ArgumentError, ValueError) as error:  # ValueError: of text that is no Unicode
        raise UserError(f"{command}: {' '.join(str(error).split())}") from None
    return {name: _read(name, value, f"{command}: --{name}") for name, value in options.items()}


def _read(name: str, value: Any, option: str) -> Any:
    """An option's value, with ``~`` and ``$VARIABLES`` of a path replaced. Raises UserError for what is no number."""
    if isinstance(value, list):
        return [_read(name, item, option) for item in value]
    if isinstance(value, float) and not isfinite(value):
        raise UserError(f"{option} {value}: give a finite number")
    if isinstance(value, Path):
        return Path(expand_path(str(value), option))
    if isinstance(value, str) and name in _INPUTS:
        return expand_path(value, option)
    return local_path(value, option) if isinstance(value, str) and name in _OUTPUTS else value


def _underscored(option: str) -> str:
    name, equals, value = option[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "pack": pack_command,
    "index": index_command,
    "audit": audit_command,
    "train": train_command,
    "evaluate": evaluate_command,
    "calibrate": calibrate_command,
    "compare": compare_command,
    "convert": convert_command,
}

if __name__ == "__main__":
    main()
