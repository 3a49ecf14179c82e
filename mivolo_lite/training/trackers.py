"""Experiment trackers through Accelerate: TensorBoard, Weights & Biases and MLflow get what ``metrics.jsonl`` gets.

A resumed run continues the same run of the tracker, whose id is kept in the run's folder.
"""

import json
import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from accelerate.tracking import GeneralTracker, MLflowTracker, TensorBoardTracker, WandBTracker

from mivolo_lite.errors import UserError, first_line
from mivolo_lite.files import write_text
from mivolo_lite.option_values import flat_options

TrackerName = Literal["auto", "tensorboard", "wandb", "mlflow"]
"""``auto`` is TensorBoard if that is installed."""

TRACKERS_FILE = "trackers.json"
"""File in the run's folder: the run's id for each tracker's name."""
_PROJECT = "mivolo_lite"


def require_trackers(names: Sequence[TrackerName]) -> None:
    """Raise UserError if a tracker is not installed."""
    for name in names:
        if name != "auto" and find_spec(name) is None:
            raise UserError(f"train.trackers: {name} is not installed; pip install {name}")


def start_trackers(
    names: Sequence[TrackerName], run: Path, config: dict[str, Any], first_step: int
) -> list[GeneralTracker]:
    """Start trackers on the main process. ``finish()`` closes them.

    Args:
        names: of the trackers.
        run: the run's folder.
        config: the run's configuration, for the tracker's page.
        first_step: at which the run starts or resumes: TensorBoard drops a killed run's later values.

    Raises:
        UserError: a tracker does not start, for example without a login.
    """
    installed = [name for name in names if name != "auto"]
    if "auto" in names and find_spec("tensorboard") is not None:
        installed.append("tensorboard")
    ids, trackers = _read_ids(run), []
    for name in dict.fromkeys(installed):
        try:
            tracker = _START[name](run, ids, first_step)
            if name != "tensorboard":  # it would write a second run for its table of hyperparameters
                _store_options(tracker, flat_options(config))
        except Exception as error:  # of the tracker's client: no login, no network, a damaged folder
            raise UserError(f"train.trackers: {name} does not start: {first_line(error)}{_advice(name)}") from None
        trackers.append(tracker)
    if ids:
        write_text(run / TRACKERS_FILE, json.dumps(ids) + "\n")
    return trackers


def _advice(name: str) -> str:
    """The remedy if MLflow has no address: mlflow-skinny, of the extra ``trackers``, has no database."""
    if name != "mlflow" or os.environ.get("MLFLOW_TRACKING_URI"):
        return ""
    return "; give a server's address as MLFLOW_TRACKING_URI, or pip install mlflow, which has a database"


def _store_options(tracker: GeneralTracker, options: dict[str, Any]) -> None:
    """Send the run's options to a tracker. MLflow rejects a second value of an option, so a changed one is a tag."""
    if isinstance(tracker, MLflowTracker):
        import mlflow

        data = tracker.tracker.data
        latest = data.params | data.tags
        mlflow.set_tags({name: value for name, value in options.items() if latest.get(name, str(value)) != str(value)})
        options = {name: value for name, value in options.items() if name not in data.params}
    tracker.store_init_configuration(options)


def _start_tensorboard(run: Path, ids: dict[str, str], first_step: int) -> GeneralTracker:
    tracker = TensorBoardTracker("tensorboard", run, purge_step=first_step + 1)
    tracker.start()
    return tracker


def _start_wandb(run: Path, ids: dict[str, str], first_step: int) -> GeneralTracker:
    ids.setdefault("wandb", uuid4().hex)
    project = os.environ.get("WANDB_PROJECT", _PROJECT)
    tracker = WandBTracker(project, dir=str(run), name=run.name, id=ids["wandb"], resume="allow")
    tracker.start()
    return tracker


def _start_mlflow(run: Path, ids: dict[str, str], first_step: int) -> GeneralTracker:
    tracker = MLflowTracker(_PROJECT, run_name=run.name, run_id=ids.get("mlflow"))
    tracker.start()
    ids["mlflow"] = tracker.tracker.info.run_id
    return tracker


def tracked_run(checkpoint: Path) -> Path:
    """The run of a checkpoint, if Weights & Biases or MLflow tracked it. TensorBoard accepts no files.

    Args:
        checkpoint: a run's folder, its ``best``, or one of its checkpoints.

    Raises:
        UserError: it is not in such a run.
    """
    for folder in (checkpoint, *checkpoint.parents[:2]):
        if _read_ids(folder):
            return folder
    raise UserError(f"{checkpoint}: lies in no run that wandb or mlflow tracked, see train.trackers")


def log_report(run: Path, report: Path) -> list[str]:
    """Send the files of an evaluation to the trackers of a run, as an artifact.

    Args:
        run: from ``tracked_run``.
        report: the output folder of ``evaluate``.

    Returns:
        Names of the trackers.

    Raises:
        UserError: a tracker rejects them.
    """
    ids = _read_ids(run)
    for name in ids:
        try:
            (tracker,) = start_trackers([name], run, {}, 0)
            _LOG_REPORT[name](tracker, run.name, report)
            tracker.finish()
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{name}: does not take {report}: {first_line(error)}") from None
    return list(ids)


def _report_to_wandb(tracker: WandBTracker, run: str, report: Path) -> None:
    import wandb

    artifact = wandb.Artifact(f"evaluation-{run}", type="evaluation")
    artifact.add_dir(str(report))
    tracker.tracker.log_artifact(artifact)


def _report_to_mlflow(tracker: MLflowTracker, run: str, report: Path) -> None:
    tracker.log_artifacts(str(report), artifact_path="evaluation")


_LOG_REPORT: dict[str, Callable[[Any, str, Path], None]] = {"wandb": _report_to_wandb, "mlflow": _report_to_mlflow}

_START = {"tensorboard": _start_tensorboard, "wandb": _start_wandb, "mlflow": _start_mlflow}


def _read_ids(run: Path) -> dict[Any, str]:
    try:
        ids = json.loads((run / TRACKERS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    ids = ids if isinstance(ids, dict) else {}
    return {name: value for name, value in ids.items() if name in _LOG_REPORT and isinstance(value, str)}
