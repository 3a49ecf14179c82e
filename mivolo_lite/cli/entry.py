"""The entry point of ``mivolo-lite``. Each command has a module of its name here, imported when it is called."""

import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from textwrap import fill
from typing import NoReturn

from mivolo_lite import __version__
from mivolo_lite.cli.names import METHOD_NAMES, MODEL_NAMES
from mivolo_lite.errors import UserError, in_one_line
from mivolo_lite.output import complain, drop_lost_outputs, escape_unprintable, printable
from mivolo_lite.processes import keep_freed_memory
from mivolo_lite.wording import did_you_mean

COMMANDS = {
    "predict": "estimate the ages and genders of people in images and videos",
    "find-faces": "add face boxes to a table of labels",
    "pack": "write images and labels to shards",
    "index": "index shards that somebody else wrote",
    "audit": "report duplicates, contradicting labels and poor images in shards",
    "train": "train a model from a configuration",
    "find-lr": "search for a learning rate",
    "seeds": "train a configuration with several seeds; report the mean and the standard deviation",
    "crossval": "cross-validate a configuration over folds",
    "curves": "plot the errors, losses and speed of trainings",
    "summary": "print a run's best error, steps, speed, restarts and goodput",
    "evaluate": "report errors, calibration and subgroups of checkpoints on data sets",
    "calibrate": "add age intervals and a gender temperature to a checkpoint",
    "compare": "compare evaluations of the same images with the first, with intervals",
    "convert": "convert published MiVOLO and SwinFace files, and back",
    "push": "upload a checkpoint and its model card to the Hugging Face hub",
    "soup": "average the weights of several fine-tuned models",
    "ensemble": "write one checkpoint that averages the outputs of several models",
    "export": "export a checkpoint to ONNX or torch.export, or its backbone to timm",
    "serve": "serve a web page and an HTTP API",
    "launch-files": "copy the package's files for accelerate and SLURM to a folder",
}
"""What each command does, in a line."""
_SIGPIPE = 13  # which Windows lacks


def run(argv: Sequence[str] | None = None) -> None:
    """Run a command; what is no fault of this program is one line, with exit code 2 for a user's.

    Args:
        argv: a command and its options. Without it, those that this process was started with, whose malloc is then
            configured; training listens to signals, and shares the CPUs out.
    """
    if argv is None:
        escape_unprintable()
        keep_freed_memory()
        if sys.argv[1:2] == ["train"]:
            _begin_training()
    try:
        _run(list(sys.argv[1:] if argv is None else argv))
    except Exception as error:
        if isinstance(error, BrokenPipeError) and drop_lost_outputs():
            sys.exit(128 + _SIGPIPE)  # as of any program in `... | head`, which has read enough
        explained = in_one_line(error)
        if explained is None:
            raise
        _end(str(explained), explained.exit_code)
    finally:
        drop_lost_outputs()  # or Python complains when it flushes them at its end


def _run(argv: list[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage())
        return
    if argv[0] == "--version":
        print(f"mivolo-lite {__version__}")
        return
    if argv[0] not in COMMANDS:
        hint = did_you_mean(argv[0], COMMANDS, otherwise=f"there are {', '.join(COMMANDS)}")
        raise UserError(f"{argv[0]}: no such command{hint}")
    import_module(f"mivolo_lite.cli.{argv[0].replace('-', '_')}").run(argv[1:])


def _usage() -> str:
    commands = [f"  {name:14}{line}" for name, line in COMMANDS.items()]
    models, methods = (
        fill(", ".join(names), 98, initial_indent="  ", subsequent_indent="  ") for names in (MODEL_NAMES, METHOD_NAMES)
    )
    return "\n".join(
        [
            "usage: mivolo-lite COMMAND ...",
            "",
            "commands (mivolo-lite COMMAND --help lists the options):",
            *commands,
            "",
            "models (train --model NAME --help lists the options):",
            models,
            "",
            "methods of age estimation (train --method NAME --help lists the options):",
            methods,
            "",
            "mivolo-lite --version prints the version",
        ]
    )


def _begin_training() -> None:
    """What a process that trains does before torch is imported."""
    from mivolo_lite.distributed.affinity import spread_over_cpus
    from mivolo_lite.distributed.preemption import listen

    listen()
    spread_over_cpus()


def _end(line: str, code: int) -> NoReturn:
    line = f"mivolo-lite: {printable(line)}"
    complain(line)
    _report_to_launcher(line)
    sys.exit(code)


def _report_to_launcher(line: str) -> None:
    """Let torch's launcher repeat the line in its report of failed processes, which follows its own traceback."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        report = {"message": {"message": line, "extraInfo": {"timestamp": str(int(time.time()))}}}
        with suppress(OSError):  # the line itself is printed
            Path(path).write_text(json.dumps(report), encoding="utf-8")
