"""Trainings of one experiment, one after another, each a run of its own that a second start resumes."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mivolo_lite.distributed.preemption import EXIT_CODE
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Tta
from mivolo_lite.evaluation.evaluate import METRICS_FILE, evaluate


class Preempted(UserError):
    """A training was preempted, and saved. The exit code tells a batch system to start it again."""

    exit_code = EXIT_CODE


def train_and_evaluate(
    words: Sequence[str],
    run: Path,
    data: str,
    folds: Sequence[int] | None,
    launcher: str,
    workers: int,
    tta: Tta | None,
) -> Path:
    """Train a run to its end, or resume it, and evaluate its best weights.

    Args:
        words: options of ``train``, without those of the run's folder.
        run: its folder.
        data: the shards to evaluate on.
        folds: these folds of them alone.
        launcher: command that starts `mivolo-lite train`, such as ``accelerate launch -m mivolo_lite``; this Python
            where it is empty.
        workers: decoding processes of the evaluation.
        tta: its test-time augmentation, see ``Estimator``.

    Returns:
        The folder of the evaluation.

    Raises:
        UserError: the training failed, and has said why.
        Preempted: it was preempted, and saved.
    """
    out = run / "evaluation"
    if (out / METRICS_FILE).is_file():  # it was evaluated once the training was complete
        return out
    start = shlex.split(launcher) or [sys.executable, "-m", "mivolo_lite"]
    command = [*start, "train", *words, "--run", str(run), "--resume", "auto"]
    print(f"\n{shlex.join(command)}", flush=True)
    code = subprocess.run(command).returncode
    if code == EXIT_CODE:
        raise Preempted(f"{run}: the training was preempted and saved; start the same command again to resume")
    if code:
        raise UserError(f"{run}: the training ended with exit code {code}; its own message stands above")
    evaluate(run / "best", data, out, workers=workers, folds=folds, tta=tta)
    return out
