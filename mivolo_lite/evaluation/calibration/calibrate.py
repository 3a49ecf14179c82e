"""Calibrates a trained estimator on held-out images: age intervals and a gender temperature in its card."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from accelerate import Accelerator

from mivolo_lite.card import CARD_FILE, DEFAULT, Tta, locate
from mivolo_lite.distributed.accelerator import join_processes
from mivolo_lite.distributed.agreement import require_agreement
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.evaluation.about import was_trained_on
from mivolo_lite.evaluation.calibration.conformal import fit_calibration
from mivolo_lite.evaluation.calibration.ranges import WIDEST
from mivolo_lite.evaluation.intervals import LIMIT
from mivolo_lite.evaluation.predict import predict
from mivolo_lite.evaluation.predictions import Predictions
from mivolo_lite.files import require_writable, result_folder
from mivolo_lite.hub import is_hub_address
from mivolo_lite.lineage import with_full_digests
from mivolo_lite.loading.workers import eval_loader
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.selection import load_selected
from mivolo_lite.wording import percent


def calibrate(
    checkpoint: Path | str,
    data: Path | str,
    level: float = 0.9,
    by: str = "all",
    batch: int = 128,
    workers: int = 0,
    out: Path | str | None = None,
    tta: Tta | None = None,
    exclude: Path | str | None = None,
    folds: Sequence[int] | None = None,
) -> dict:
    """Write ``calibration`` to the checkpoint's ``model.yaml``, replacing an earlier one, and return it.

    The gender's temperature does not change if the images do not determine one.

    Args:
        checkpoint: the ``best`` folder of a run.
        data: folder of indexed shards that were not trained on.
        level, by: see ``fit_calibration``.
        batch: samples of one forward pass.
        workers: decoding processes.
        out: folder for a calibrated copy; the checkpoint then stays as it is.
        tta: test-time augmentation, see ``Estimator``; it is written to the card. None for the card's.
        exclude: list of samples to leave out, by their keys.
        folds: calibrate on these folds only.

    Raises:
        UserError: the checkpoint is on the hub or the package's own, and ``out`` is None; the data were trained on,
            have too few known ages, or cannot be read.
    """
    if out is None:
        _require_own_folder(checkpoint)
    estimator = Estimator.load(checkpoint)
    estimator.use_tta(tta)
    accelerator = join_processes()
    index = load_selected(data, None, folds, exclude)
    require_agreement({"data": index.digest[:16], "tta": tta}, accelerator)
    if was_trained_on(checkpoint, data, index):
        raise UserError(f"{data}: the model was trained on these images and errs less on them; give others")
    if not estimator.card.age:
        raise UserError(f"calibrate {checkpoint}: it learnt no ages, so it has no age intervals; give another one")
    if accelerator.is_main_process:  # before the estimation
        require_writable(locate(checkpoint)) if out is None else result_folder(Path(out), ())
    temperature = estimator.card.calibration.get("gender_temperature", 1.0)
    estimator.card.tta = estimator.tta
    estimator.card.calibration, estimator.tasks = {}, []  # labels of other tasks may not match
    predictions = _predict(estimator, index, accelerator, batch, workers)
    try:
        calibration = fit_calibration(predictions, level, by, temperature)
    except ValueError as error:
        raise UserError(f"{data}: {error}; give more images or a lower --level") from None
    estimator.card.calibration = calibration | {"data_digest": with_full_digests(index.digest, [index])}
    if accelerator.is_main_process:
        estimator.card.save(locate(checkpoint)) if out is None else estimator.save(out)
    return estimator.card.calibration


def _require_own_folder(checkpoint: Path | str) -> None:
    """Raise UserError for a checkpoint on the hub or the package's own, whose card must not change."""
    advice = "give --out FOLDER for a calibrated copy"
    if is_hub_address(checkpoint):
        raise UserError(f"calibrate {checkpoint}: cannot write to the hub; {advice}")
    if str(checkpoint) == DEFAULT:
        raise UserError(f"calibrate {checkpoint}: is part of the package; {advice}")


def _predict(
    estimator: Estimator, index: ShardIndex, accelerator: Accelerator, batch: int, workers: int
) -> Predictions:
    rank, world_size = accelerator.process_index, accelerator.num_processes
    loader = eval_loader(index, estimator.inputs, estimator.card.image_size, batch, workers, rank, world_size)
    return predict(estimator.to(accelerator.device), loader, index, accelerator)


def card_path(checkpoint: Path | str, out: Path | str | None) -> Path:
    """Where ``calibrate`` writes the card."""
    return (locate(checkpoint) if out is None else Path(out)) / CARD_FILE


def calibration_table(calibration: dict) -> str:
    """The calibration as text."""
    lines = [f"{percent(calibration['level'])} of ages lie within {calibration['radius']:.2f} years of the estimate"]
    lines += [f"  {name:14}{radius:8.2f}" for name, radius in calibration["radii"].items()]
    if calibration["by"] == "age":
        lines.append("(by estimated age)")
    if calibration["few"]:
        listed = ", ".join(f"{name} ({n})" for name, n in calibration["few"].items())
        instead = "with the nearest in age" if calibration["by"] == "age" else "the radius of all"
        lines.append(f"  too few ages of their own, so {instead}: {listed}")
    if calibration["wide"]:
        lines.append(
            f"warning: {calibration['wide']} ages are ranges of more than {WIDEST} years, as 18+, and left out, so the "
            "intervals are of images like the others"
        )
    temperature = calibration["gender_temperature"]
    doubt = "overconfident" if temperature > 1 else "underconfident"
    if calibration["gender_fitted"] and not np.isclose(temperature, 1):
        lines.append(f"gender logits are divided by {temperature:.3f}: they were {doubt}")
    elif not calibration["gender_fitted"] and (calibration["gender_n"] or temperature != 1):
        lines.append(
            f"gender logits are divided by {temperature:.3f} as before: a temperature takes {LIMIT} people of both "
            "genders, and one whose gender is wrong"
        )
    people = f" of {calibration['people']} people" if "people" in calibration else ""
    lines.append(f"from {calibration['n']} ages{people} and {calibration['gender_n']} genders")
    return "\n".join(lines)
