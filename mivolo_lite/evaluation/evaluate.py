"""A trained estimator against a data set, from the files of one to the files of the result."""

import json
from pathlib import Path

from accelerate import Accelerator

from mivolo_lite.data.cache import CacheConfig
from mivolo_lite.data.index import ShardIndex
from mivolo_lite.data.loader import eval_loader
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.evaluation.metrics import evaluate_predictions
from mivolo_lite.evaluation.predictions import predict, predict_each, write_csv

METRICS_FILE, PREDICTIONS_FILE = "metrics.json", "predictions.csv"

COLUMNS = {"face": ("face",), "body": ("body",), "both": ("face", "body")}
"""What ``--inputs`` can ask for, and the pictures that the model is then shown."""


def evaluate(
    checkpoint: Path | str,
    data: Path | str,
    out: Path | str,
    inputs: str | None = None,
    batch: int = 128,
    workers: int = 0,
    cache: CacheConfig | None = None,
) -> dict:
    """Write ``metrics.json`` and ``predictions.csv``, and return the metrics.

    Args:
        checkpoint: the ``best`` folder of a run.
        data: folder of indexed shards, or their URL.
        out: folder for the results; made where it is missing.
        inputs: of ``COLUMNS``, separated by commas: evaluate the model once with each, the other picture hidden. The
            metrics are then a section for each, under ``inputs``, and the CSV has an estimate for each. None shows the
            model all that it takes, with the metrics at the top level.
        batch: samples of one forward pass.
        workers: decoding processes.
        cache: where the node keeps what it fetches from a URL.

    Raises:
        UserError: the checkpoint, the data or ``inputs`` cannot be meant, or a picture cannot be decoded.
    """
    estimator, index, accelerator = Estimator.load(checkpoint), ShardIndex.load(data, cache), Accelerator()
    shown = {} if inputs is None else _columns(inputs, estimator.inputs, checkpoint)
    decoded = tuple(name for name in estimator.inputs if not shown or any(name in names for names in shown.values()))
    rank, world_size = accelerator.process_index, accelerator.num_processes
    loader = eval_loader(index, decoded, estimator.card.image_size, batch, workers, rank, world_size)
    estimator.to(accelerator.device)
    if accelerator.device.type == "cpu" and accelerator.mixed_precision == "no":
        estimator.model = estimator.model.for_inference()
    metrics = {"checkpoint": str(checkpoint), "data": {"folder": str(data), "digest": index.digest}}
    if shown:
        columns = predict_each(estimator, loader, index, accelerator, shown)
        metrics["inputs"] = {
            name: evaluate_predictions(predictions) | {"missing": predictions.missing}
            for name, predictions in columns.items()
        }
    else:
        columns = {None: predict(estimator, loader, index, accelerator)}
        metrics |= evaluate_predictions(columns[None])
    if accelerator.is_main_process:
        out = Path(out)
        out.mkdir(parents=True, exist_ok=True)
        write_csv(columns, out / PREDICTIONS_FILE)
        (out / METRICS_FILE).write_text(json.dumps(metrics, indent=2) + "\n")
    return metrics


def _columns(inputs: str, own: tuple[str, ...], checkpoint: Path | str) -> dict[str, tuple[str, ...]]:
    """The pictures to show by column. Raises UserError for an unknown one, and for one that the model does not take."""
    names = [name.strip() for name in inputs.split(",")]
    for name in names:
        if name not in COLUMNS:
            raise UserError(f"--inputs {inputs}: {name!r} is not one of {', '.join(COLUMNS)}")
        if not set(COLUMNS[name]) <= set(own):
            raise UserError(f"--inputs {inputs}: {checkpoint} looks at the {own[0]} alone; ask for {own[0]}")
    return {name: COLUMNS[name] for name in names}
