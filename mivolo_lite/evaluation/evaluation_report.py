"""The report of one evaluation: its metrics, and the images with the largest errors."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mivolo_lite.evaluation.about import about_data, about_model, cautions
from mivolo_lite.evaluation.metrics import METRICS_FILE
from mivolo_lite.evaluation.predict import Evaluator
from mivolo_lite.evaluation.predictions import PREDICTIONS_FILE, Predictions
from mivolo_lite.evaluation.report import write_report
from mivolo_lite.evaluation.report_sections import Result, worst_rows
from mivolo_lite.evaluation.thumbnails import corrupted_thumbnails, thumbnails
from mivolo_lite.shards.index import ShardIndex


def write_evaluation_report(
    metrics: dict,
    predictions: Mapping[str | None, Predictions],
    evaluator: Evaluator,
    corrupted: np.ndarray | None,
    out: Path,
    figures: str,
) -> None:
    """Write ``report.html`` and ``plots/``.

    Args:
        metrics: of ``evaluate``.
        predictions: by the names of the input sets.
        evaluator: the model and the data.
        corrupted: numbers of the samples that were corrupted, of which the report shows one; None for none.
        out: folder of the results.
        figures: format of the plots' files.
    """
    index, card, results = evaluator.index, evaluator.estimator.card, []
    example = None if corrupted is None else _most_images(index, corrupted, evaluator.inputs)
    for name, prediction in predictions.items():
        images = evaluator.input_sets[name]
        section = metrics if name is None else metrics["inputs"][name]
        faces = thumbnails(index, worst_rows(prediction).tolist(), images)
        versions = {} if example is None else corrupted_thumbnails(index, example, images, card.image_size)
        results.append(Result(name, section, prediction, faces, versions))
    about = about_model(metrics["checkpoint"], card) | {
        "Evaluation data": about_data(metrics["data"]["folder"], index.digest, len(index)),
        "Calibration data": _calibrated_on(card.calibration, metrics),
        "Tasks left out": "; ".join(f"{name}: {why}" for name, why in metrics.get("tasks_left_out", {}).items()),
    }
    files, warning = (METRICS_FILE, PREDICTIONS_FILE), " ".join(cautions(metrics["data"]))
    write_report(results, about, out, files, figures, warning)


def _most_images(index: ShardIndex, samples: np.ndarray, inputs: tuple[str, ...]) -> int:
    """The first of the samples with the most inputs."""
    present = [index.columns[f"{name}_size"][samples] > 0 for name in inputs]
    return int(samples[np.argmax(np.sum(present, axis=0))])


def _calibrated_on(calibration: dict, metrics: dict) -> str:
    if metrics.get("calibrated_on_these_images"):
        return "the same images, so the interval coverage is no evidence"
    return calibration["data_digest"][:12] if calibration else ""
