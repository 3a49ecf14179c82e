"""Cross-validation: every sample is estimated by a model that was trained without its fold."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from mivolo_lite.card import Tta
from mivolo_lite.config import is_on_command_line, read_run_config
from mivolo_lite.errors import UserError
from mivolo_lite.evaluation.about import DOUBTS, was_trained_on
from mivolo_lite.evaluation.evaluate import describe_data
from mivolo_lite.evaluation.metric_names import METRICS
from mivolo_lite.evaluation.metrics import METRICS_FILE
from mivolo_lite.evaluation.predictions import PREDICTIONS_FILE, Predictions, read_csv, write_csv
from mivolo_lite.evaluation.report import write_report
from mivolo_lite.evaluation.report_sections import Result
from mivolo_lite.evaluation.summary import summarise
from mivolo_lite.experiments.training_runs import train_and_evaluate
from mivolo_lite.files import result_folder, write_json
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.subset import fold_numbers
from mivolo_lite.training.json_lines import LOG_FILE
from mivolo_lite.training.run_config import RunConfig

CROSSVAL_FILE, POOLED = "crossval.json", "evaluation"


@dataclass(frozen=True)
class CrossValidation:
    """The error of a recipe over all folds of a data set.

    Attributes:
        folds: of each fold, its metrics by name, None where the data lacks the label.
        pooled: the metrics of ``summarise``, of the predictions of all folds together, and what they are of, as
            ``evaluate`` says it.
    """

    folds: list[dict[str, float | None]]
    pooled: dict


def cross_validate(
    words: Sequence[str], folds: int, launcher: str = "", workers: int = 2, tta: Tta | None = None
) -> CrossValidation:
    """Train a configuration once for each fold, without that fold, and evaluate each model on its fold.

    A model's weights are those at the end of its training: the best ones on its fold would know it.

    The runs are folders below the configuration's run: ``fold-0`` and so on. A run that is complete is not trained
    again, and one that was interrupted resumes. ``evaluation/`` has the report of all predictions together.

    Args:
        words: options of ``train``; their ``data.train`` is one data set that was packed with ``--folds``.
        folds: as many as it has.
        launcher, workers, tta: see ``train_and_evaluate``.

    Raises:
        UserError: the configuration is invalid, it names several data sets, has another number of folds, lets the
            error on ``data.val`` decide on the training, begins with a model that was trained on the data set, or has
            such a teacher; or a training failed.
    """
    if is_on_command_line("data.val", words):
        raise UserError("crossval: --data.val: each model is evaluated on the fold that it left out; leave it out")
    # Every fold has a data.val of its own, so none need be given: here any value will do.
    config = read_run_config([*words, "--data.val", "-"])
    _check(config, folds)
    folder, path = Path(config.run), config.data.train_sets[0].path
    _require_no_run(folder)
    evaluations = [
        train_and_evaluate(
            [*words, *_without_fold(path, fold, folds)], folder / f"fold-{fold}", "last", launcher, workers, tta
        )
        for fold in range(folds)
    ]
    predictions = _concatenate([read_csv(out / PREDICTIONS_FILE)[None] for out in evaluations])
    metrics = [json.loads((out / METRICS_FILE).read_text(encoding="utf-8")) for out in evaluations]
    result = CrossValidation(
        [{name: of_fold[name] for name in METRICS} for of_fold in metrics],
        _about(config, folds, metrics[0]) | summarise(predictions),
    )
    _write(result, predictions, folder)
    return result


def _require_no_run(folder: Path) -> None:
    """Raise UserError where a folder holds a run, whose ``evaluation/`` may be there as well."""
    if (folder / LOG_FILE).is_file() and not (folder / "fold-0").is_dir():  # earlier versions began there
        raise UserError(f"crossval: --run {folder}: holds a run, whose evaluation it would replace; choose another")


def _about(config: RunConfig, folds: int, of_fold: dict[str, Any]) -> dict[str, Any]:
    """What all folds together are of, as ``evaluate`` says it, given the metrics of one."""
    (train_set,), exclude = config.data.train_sets, config.data.exclude
    data = describe_data(train_set.path, config.data.load(train_set), range(folds), exclude)
    shared = {name: of_fold["data"][name] for name in DOUBTS if name in of_fold["data"]}
    tta = {"tta": of_fold["tta"]} if "tta" in of_fold else {}
    return {"checkpoint": config.run, "data": data | shared} | tta


def _check(config: RunConfig, folds: int) -> None:
    """Raise UserError where the folds are not all of one data set, or where a model would know the one left out."""
    if len(config.data.train_sets) != 1:
        raise UserError("crossval: data.train names several data sets; pack one with --folds")
    (train_set,) = config.data.train_sets
    if train_set.folds is not None:
        raise UserError(f"crossval: data.train {train_set}: takes all of them; name the folder alone")
    if config.train.patience is not None or config.optim.schedule == "plateau":
        raise UserError(
            "crossval: train.patience and optim.schedule plateau go by the error on the fold that is left out; "
            "set train.patience to null, and take another schedule"
        )
    path, index = train_set.path, ShardIndex.load(train_set.path, config.data.cache)
    numbers = fold_numbers(index)
    if numbers != list(range(folds)):
        listed = ", ".join(f"{fold:g}" for fold in numbers)
        raise UserError(f"crossval: --folds {folds}: {path} has the folds {listed}")
    for parent in config.parents:
        if was_trained_on(parent, path, index):
            raise UserError(f"crossval: {parent} was trained on {path}, so no fold is new to it; begin with another")


def _without_fold(path: str, fold: int, folds: int) -> list[str]:
    """Options of ``train`` that leave a fold to ``data.val``."""
    rest = [other for other in range(folds) if other != fold]
    return [
        *("--data.train", json.dumps([{"path": path, "folds": rest}])),
        *("--data.val", json.dumps({"path": path, "folds": [fold]})),
    ]


def crossval_table(result: CrossValidation) -> str:
    """Mean, spread and pooled value of each metric as text."""
    lines = [f"{'':17}{'n':>8}{'pooled':>8}{'mean':>8}{'std':>8}  each fold"]
    for name, metric in METRICS.items():
        form = metric.form
        values = [value for fold in result.folds if (value := fold[name]) is not None]
        if not values:
            continue
        n = result.pooled["gender_n" if name == "gender_accuracy" else "n"]
        spread = f"{np.mean(values):>8{form}}{np.std(values, ddof=1):>8{form}}" if len(values) > 1 else " " * 16
        listed = ", ".join("-" if fold[name] is None else f"{fold[name]:{form}}" for fold in result.folds)
        lines.append(f"{metric.title:17}{n:8}{result.pooled[name]:>8{form}}{spread}  {listed}")
    people = f" of {result.pooled['people']} people" if "people" in result.pooled else ""
    return "\n".join([*lines, "", f"pooled: n images{people}, each estimated by the model that never saw it"])


def _concatenate(predictions: Sequence[Predictions]) -> Predictions:
    columns: dict[str, Any] = {}
    for field in fields(Predictions):
        values = [getattr(of_fold, field.name) for of_fold in predictions]
        if any(value is None for value in values):  # identities, which evaluations of earlier versions lack
            columns[field.name] = None
        elif isinstance(values[0], np.ndarray):
            columns[field.name] = np.concatenate(values)
        elif isinstance(values[0], list):
            columns[field.name] = [item for value in values for item in value]
    return replace(predictions[0], **columns)


def _write(result: CrossValidation, predictions: Predictions, folder: Path) -> None:
    out = folder / POOLED
    result_folder(out, (METRICS_FILE, PREDICTIONS_FILE))
    write_csv({None: predictions}, out / PREDICTIONS_FILE)
    about = {"Cross-validation": f"{len(result.folds)} folds of {result.pooled['data']['folder']}"}
    write_report([Result(None, result.pooled, predictions)], about, out, (METRICS_FILE, PREDICTIONS_FILE))
    write_json(out / METRICS_FILE, result.pooled)
    write_json(folder / CROSSVAL_FILE, {"folds": result.folds})
