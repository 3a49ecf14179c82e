"""A trained estimator against a data set, from the files of one to the files of the result."""

import json
from pathlib import Path

from accelerate import Accelerator

from mivolo_lite.data.cache import CacheConfig
from mivolo_lite.data.index import ShardIndex
from mivolo_lite.data.loader import eval_loader
from mivolo_lite.estimator import Estimator
from mivolo_lite.evaluation.metrics import evaluate_predictions
from mivolo_lite.evaluation.predictions import predict

METRICS_FILE, PREDICTIONS_FILE = "metrics.json", "predictions.csv"


def evaluate(
    checkpoint: Path | str,
    data: Path | str,
    out: Path | str,
    batch: int = 128,
    workers: int = 0,
    cache: CacheConfig | None = None,
) -> dict:
    """Write ``metrics.json`` and ``predictions.csv``, and return the metrics.

    Args:
        checkpoint: the ``best`` folder of a run.
        data: folder of indexed shards, or their URL.
        out: folder for the results; made where it is missing.
        batch: samples of one forward pass.
        workers: decoding processes.
        cache: where the node keeps what it fetches from a URL.
    """
    estimator, index, accelerator = Estimator.load(checkpoint), ShardIndex.load(data, cache), Accelerator()
    rank, world_size = accelerator.process_index, accelerator.num_processes
    loader = eval_loader(index, estimator.inputs, estimator.card.image_size, batch, workers, rank, world_size)
    predictions = predict(estimator.to(accelerator.device), loader, index, accelerator)
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
