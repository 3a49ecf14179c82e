"""Trainings of one experiment, one after another, each a run of its own that a second start resumes."""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from mivolo_lite.card import Card, Tta
from mivolo_lite.config import read_run_config
from mivolo_lite.distributed.preemption import EXIT_CODE, run_training
from mivolo_lite.errors import MachineError, UserError
from mivolo_lite.evaluation.evaluate import evaluate
from mivolo_lite.evaluation.metrics import METRICS_FILE
from mivolo_lite.lineage import data_digest
from mivolo_lite.loading.readers import READERS
from mivolo_lite.system import command_line
from mivolo_lite.training.checkpoint import finished_checkpoints
from mivolo_lite.training.run_config import RunConfig, changed_options
from mivolo_lite.training.run_folder import RunFolder

Weights = Literal["best", "last"]
"""Which weights of a training: those with the lowest error on its ``data.val``, or those at its end."""


class Preempted(UserError):
    """A training was preempted. The exit code tells a batch system to start it again."""

    exit_code = EXIT_CODE


def train_and_evaluate(
    words: Sequence[str], run: Path, weights: Weights, launcher: str, workers: int, tta: Tta | None
) -> Path:
    """Train a run to its end, or resume it, and evaluate it on its ``data.val``.

    Args:
        words: options of ``train``, without those of the run's folder.
        run: its folder.
        weights: which are evaluated.
        launcher: command that starts `mivolo-lite train`, such as ``accelerate launch -m mivolo_lite``; this Python
            where it is empty.
        workers: decoding processes of the evaluation.
        tta: its test-time augmentation, see ``Estimator``.

    Returns:
        The folder of the evaluation.

    Raises:
        UserError: the training failed, and has said why; or its folder holds one with other options, or of other data.
        Preempted: it, or this process, was preempted.
    """
    words, out = [*words, "--run", str(run), "--resume", "auto"], run / "evaluation"
    config = read_run_config(words)
    _require_same_options(run, config)
    if not (out / METRICS_FILE).is_file():  # it was evaluated once the training was complete
        _train(words, run, launcher)
    else:
        _require_same_data(run, out, config)
        if _metrics(out).get("tta", "none") == (tta or Card.load(run / "best").tta):
            return out
    val = config.data.val_set
    evaluate(
        run / "best" if weights == "best" else finished_checkpoints(run / "checkpoints")[-1],
        val.path,
        out,
        workers=workers,
        folds=val.folds,
        tta=tta,
        exclude=config.data.exclude,
        cache=config.data.cache,
    )
    return out


def _train(words: Sequence[str], run: Path, launcher: str) -> None:
    command = [*_words_of(launcher), "train", *words]
    print(f"\n{command_line(command)}", flush=True)
    code, is_preempted = run_training(command)
    if code == EXIT_CODE or is_preempted:
        raise Preempted(f"{run}: the training was preempted; start the same command again to resume")
    if code:
        kind = UserError if code == UserError.exit_code else MachineError  # what was killed may succeed next time
        raise kind(f"{run}: the training ended with exit code {code}; its own message stands above")


def _words_of(launcher: str) -> list[str]:
    try:
        return shlex.split(launcher) or [sys.executable, "-m", "mivolo_lite"]
    except ValueError as error:
        raise UserError(f"--launcher {launcher}: {error}") from None


def _metrics(evaluation: Path) -> dict[str, Any]:
    return json.loads((evaluation / METRICS_FILE).read_text(encoding="utf-8"))


def _require_same_options(run: Path, config: RunConfig) -> None:
    """Raise UserError where the folder holds a training with other options: its results would pass for these."""
    if others := list(changed_options(RunFolder(run).config, config)):
        raise UserError(f"{run}: holds a training with another {', '.join(others[:5])}; choose another --run")


def _require_same_data(run: Path, evaluation: Path, config: RunConfig) -> None:
    """Raise UserError where a complete training is of other data than the folders hold now, as far as its files say.
    One that is not complete checks that itself."""
    now = {
        "data.train": READERS[config.data.reader](config.data, config.train.seed).digest,
        "data.val": config.data.load(config.data.val_set).digest,
    }
    then = {"data.train": data_digest(run / "best"), "data.val": _metrics(evaluation).get("data", {}).get("digest")}
    if others := [name for name in now if then[name] and now[name] not in then[name]]:
        raise UserError(f"{run}: {' and '.join(others)} held other samples when it was trained; choose another --run")
