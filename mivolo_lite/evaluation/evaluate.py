"""A trained estimator against a data set, from the files of one to the files of the result."""

import json
from pathlib import Path

from accelerate import Accelerator

from mivolo_lite.data.index import ShardIndex
from mivolo_lite.data.loader import eval_loader
from mivolo_lite.estimator import Estimator
from mivolo_lite.evaluation.metrics import evaluate_predictions
from mivolo_lite.evaluation.predictions import predict

METRICS_FILE, PREDICTIONS_FILE = "metrics.json", "predictions.csv"


def evaluate(checkpoint: Path | str, data: Path | str, out: Path | str, batch: int = 128, workers: int = 0) -> dict:
    """Write ``metrics.json`` and ``predictions.csv``, and return the metrics.

    Args:
        checkpoint: the ``best`` folder of a run.
        data: folder of indexed shards.
        out: folder for the results; made where it is missing.
        batch: samples of one forward pass.
        workers: decoding processes.
    """
    estimator, index, accelerator = Estimator.load(checkpoint), ShardIndex.load(data), Accelerator()
    rank, world_size = accelerator.process_index, accelerator.num_processes
    loader = eval_loader(index, estimator.inputs, estimator.card.image_size, batch, workers, rank, world_size)
    estimator.to(accelerator.device)
    if accelerator.device.type == "cpu" and accelerator.mixed_precision == "no":
        estimator.model = estimator.model.for_inference()
    predictions = predict(estimator, loader, index, accelerator)
    metrics = {
        "checkpoint": str(checkpoint),
        "data": {"folder": str(data), "digest": index.digest},
        **evaluate_predictions(predictions),
    }
    if accelerator.is_main_process:
        out = Path(out)
        out.mkdir(parents=True, exist_ok=True)
        predictions.write_csv(out / PREDICTIONS_FILE)
        (out / METRICS_FILE).write_text(json.dumps(metrics, indent=2) + "\n")
    return metrics
