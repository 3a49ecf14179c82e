"""Evaluates a trained estimator on a data set, and writes the results."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mivolo_lite.card import Tta
from mivolo_lite.credentials import without_credentials
from mivolo_lite.distributed.accelerator import join_processes
from mivolo_lite.distributed.agreement import require_agreement
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.evaluation.about import doubts
from mivolo_lite.evaluation.calibration.conformal import age_intervals
from mivolo_lite.evaluation.metrics import METRICS_FILE
from mivolo_lite.evaluation.nist import LEGAL_AGES
from mivolo_lite.evaluation.predict import Evaluator, predict, predict_each
from mivolo_lite.evaluation.predictions import PREDICTIONS_FILE, Predictions, write_csv
from mivolo_lite.evaluation.robustness import choose, measure_robustness
from mivolo_lite.evaluation.summary import summarise
from mivolo_lite.files import require_replaceable, result_folder, write_json
from mivolo_lite.lineage import shares_samples
from mivolo_lite.loading.task_labels import task_column
from mivolo_lite.loading.workers import eval_loader
from mivolo_lite.reporting.plot_folder import clear_plots
from mivolo_lite.shards.cache import CacheConfig
from mivolo_lite.shards.exclude import count_left_out
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.selection import load_selected

MATRIX_FILES = MATRIX_FILE, MATRIX_CSV_FILE, PAGE_FILE = "matrix.json", "matrix.csv", "report.html"
RESULT_FILES = (METRICS_FILE, PREDICTIONS_FILE, *MATRIX_FILES)
"""Files of an evaluation or of a matrix of them. Each removes the other's files next to its own."""

INPUT_SETS = {"face": ("face",), "body": ("body",), "both": ("face", "body")}
"""The choices of ``--inputs``, with the images that the model gets."""


def evaluate(
    checkpoint: Path | str,
    data: Path | str,
    out: Path | str,
    inputs: str | None = None,
    batch: int = 128,
    workers: int = 0,
    cache: CacheConfig | None = None,
    report: bool = True,
    figures: str = "png",
    legal_ages: Sequence[int] = LEGAL_AGES,
    robustness: bool = False,
    robustness_samples: int | None = None,
    exclude: Path | str | None = None,
    folds: Sequence[int] | None = None,
    tta: Tta | None = None,
) -> dict:
    """Write ``metrics.json``, ``predictions.csv`` and the report, and return the metrics.

    Args:
        checkpoint: the ``best`` folder of a run.
        data: folder of indexed shards, or their URL.
        out: folder for the results; created if it is missing.
        inputs: of ``INPUT_SETS``, separated by commas: evaluate the model once with each, hiding the other image. The
            metrics then have a section for each, under ``inputs``, and the CSV an estimate for each. None gives the
            model all of its inputs, with the metrics at the top level.
        batch: samples of one forward pass.
        workers: decoding processes.
        cache: of files from a URL, on each node.
        report: also write ``report.html`` and ``plots/``.
        figures: format of the plots' files: png, pdf or svg.
        legal_ages: for the curves of how often minors and adults pass a challenge age.
        robustness: also estimate from degraded images, see ``robustness``: 51 forward passes of each sample.
        robustness_samples: number of samples of known age for it, sampled at random but always the same; None for all.
        exclude: list of samples to leave out, by their keys.
        folds: evaluate only on these folds of the data set.
        tta: test-time augmentation, see ``Estimator``; None for the card's.

    Raises:
        UserError: checkpoint, data or ``inputs`` are invalid; ``out`` holds other results, or cannot be written.
    """
    if robustness_samples is not None and not robustness:
        raise UserError(f"--robustness_samples {robustness_samples}: give --robustness yes as well")
    out = Path(out)
    estimator = Estimator.load(checkpoint)
    estimator.use_tta(tta)
    index = load_selected(data, cache, folds, exclude)
    accelerator = join_processes()
    work: dict[str, Any] = {"data": index.digest[:16], "inputs": inputs, "tta": estimator.tta}
    work |= {"robustness": robustness, "robustness_samples": robustness_samples}
    require_agreement(work, accelerator)
    evaluator = Evaluator(estimator, index, accelerator, read_input_sets(inputs, estimator.inputs, checkpoint))
    left_out = _leave_out_tasks(estimator, index)
    samples = choose(index, evaluator.inputs, robustness_samples) if robustness else None
    if accelerator.is_main_process:
        require_replaceable(out, RESULT_FILES)  # before hours of estimating
        result_folder(out, ())
    predictions = _estimate(evaluator, batch, workers)
    measured = None if samples is None else measure_robustness(evaluator, samples, batch, workers)
    metrics = {
        "checkpoint": str(checkpoint),
        "data": describe_data(data, index, folds, exclude)
        | doubts(checkpoint, estimator.card, data, index, evaluator.inputs),
        **_describe_estimator(estimator, index, left_out, accelerator.mixed_precision),
        **_sections(predictions, legal_ages, estimator.card.calibration.get("level"), measured),
    }
    if accelerator.is_main_process:
        result_folder(out, RESULT_FILES)
        clear_plots(out)
        write_csv(predictions, out / PREDICTIONS_FILE)
        if report:
            from mivolo_lite.evaluation.evaluation_report import write_evaluation_report  # matplotlib takes a second

            write_evaluation_report(metrics, predictions, evaluator, samples, out, figures)
        write_json(out / METRICS_FILE, metrics)  # last: it marks a complete evaluation
    return metrics


def _estimate(evaluator: Evaluator, batch: int, workers: int) -> dict[str | None, Predictions]:
    """The predictions for every sample, with age intervals if the checkpoint is calibrated."""
    estimator, index, accelerator = evaluator.estimator, evaluator.index, evaluator.accelerator
    ranks = accelerator.process_index, accelerator.num_processes
    loader = eval_loader(index, evaluator.inputs, estimator.card.image_size, batch, workers, *ranks)
    estimator.to(accelerator.device)
    if accelerator.device.type == "cpu" and accelerator.mixed_precision == "no":
        estimator.model = estimator.model.for_inference()
    if None in evaluator.input_sets:
        by_inputs: dict[str | None, Predictions] = {None: predict(estimator, loader, index, accelerator)}
    else:
        by_inputs = predict_each(evaluator, loader)
    return {name: _with_intervals(predictions, estimator.card.calibration) for name, predictions in by_inputs.items()}


def _sections(
    predictions: Mapping[str | None, Predictions],
    legal_ages: Sequence[int],
    level: float | None,
    robustness: Mapping[str | None, dict | None] | None,
) -> dict[str, Any]:
    """The metrics of all inputs at once, or those of each of ``--inputs`` under its name."""
    summaries = {name: summarise(prediction, legal_ages, level) for name, prediction in predictions.items()}
    if robustness is not None:
        summaries = {name: summary | {"robustness": robustness[name]} for name, summary in summaries.items()}
    if None in summaries:
        return summaries[None]
    return {"inputs": {name: summary | {"missing": predictions[name].missing} for name, summary in summaries.items()}}


def _leave_out_tasks(estimator: Estimator, index: ShardIndex) -> dict[str, str]:
    """Restrict the estimator to tasks that the labels fit: a data set may have other groups, or other class numbers.

    Returns:
        The reason for each task left out, by its name.
    """
    reasons = {}
    for task in estimator.tasks:
        try:
            task_column(index, task.name, None if task.kind == "embedding" else task.classes)
        except ValueError as error:
            reasons[task.name] = str(error)
    estimator.tasks = [task for task in estimator.tasks if task.name not in reasons]
    return reasons


def _describe_estimator(
    estimator: Estimator, index: ShardIndex, left_out: dict[str, str], precision: str
) -> dict[str, Any]:
    """How the estimator was used, for the metrics: only differences from the default, in which it answers all tasks."""
    described: dict[str, Any] = {} if estimator.tta == "none" else {"tta": estimator.tta}
    if precision != "no":  # set by a launcher
        described["precision"] = precision
    if estimator.card.calibration:
        described["calibrated_on_these_images"] = shares_samples(estimator.card.calibration["data_digest"], index)
    if left_out:
        described["tasks_left_out"] = left_out
    return described


def describe_data(
    data: Path | str, index: ShardIndex, folds: Sequence[int] | None, exclude: Path | str | None
) -> dict[str, Any]:
    """The evaluated data, for the metrics."""
    described: dict[str, Any] = {"folder": without_credentials(str(data)), "digest": index.digest}
    if folds is not None:
        described["folds"] = list(folds)
    if exclude:
        described |= {"exclude": str(exclude), "excluded": count_left_out(index)}
    return described


def _with_intervals(predictions: Predictions, calibration: dict) -> Predictions:
    if not calibration:
        return predictions
    lower, upper = age_intervals(calibration, predictions.age, predictions.gender, predictions.group)
    return replace(predictions, lower=lower, upper=upper)


def read_input_sets(
    inputs: str | None, model_inputs: tuple[str, ...], checkpoint: Path | str
) -> dict[str | None, tuple[str, ...]]:
    """The images for the model, by the names in ``--inputs``; all of its inputs under None without that option.

    Raises:
        UserError: a name is unknown, or the model does not have that input.
    """
    if inputs is None:
        return {None: model_inputs}
    names = [name.strip() for name in inputs.split(",")]
    for name in names:
        if name not in INPUT_SETS:
            raise UserError(f"--inputs {inputs}: {name!r} is not one of {', '.join(INPUT_SETS)}")
        if not set(INPUT_SETS[name]) <= set(model_inputs):
            raise UserError(
                f"--inputs {inputs}: {checkpoint} looks at the {model_inputs[0]} alone; ask for {model_inputs[0]}"
            )
    return {name: INPUT_SETS[name] for name in names}
