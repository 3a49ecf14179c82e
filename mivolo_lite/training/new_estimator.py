"""The estimator of a run before its first step."""

from dataclasses import asdict
from pathlib import Path

import torch

from mivolo_lite.card import CARD_FILE, MODEL_FILE, Card, locate, require_files
from mivolo_lite.card_changes import fresh_weights, method_changes, require_same_model
from mivolo_lite.errors import UserError, where_raised
from mivolo_lite.estimator import Estimator
from mivolo_lite.lineage import joined_digests, with_full_digests
from mivolo_lite.loading.readers import IndexReader, StreamReader
from mivolo_lite.training.run_config import RunConfig, named_options
from mivolo_lite.wording import first_few


def new_estimator(config: RunConfig, reader: IndexReader | StreamReader, weights_from: Path | None) -> Estimator:
    """The estimator of a run, with new heads that start at the ages of the data.

    Args:
        config: the whole run.
        reader: of its data.
        weights_from: folder of a checkpoint whose weights are loaded afterwards, so that the backbone's own need not be
            downloaded. Normalisation and licence are those of its card.

    Raises:
        UserError: the method weighs ages by their counts, which are unknown for a stream.
    """
    start, inherited = None, {}
    if weights_from is not None and (weights_from / CARD_FILE).exists():
        start = Card.load(weights_from)
        inherited = {name: getattr(start, name) for name in ("normalisation", "licence", "attribution")}
    card = Card(
        **inherited,
        model=named_options(config.model),
        method=named_options(config.method),
        span=asdict(config.ages),
        image_size=config.data.image_size,
        crop_policy=reader.crop_policy,
        data_digest=joined_digests(
            with_full_digests(reader.digest, reader.indexes), filter(None, (weights_from, *config.optim.teachers))
        ),
        tasks=[asdict(task) for task in config.tasks],
    )
    try:
        estimator = Estimator(card if weights_from is None else card.from_nothing(), reader.people)
    except (AttributeError, NameError, TypeError) as error:  # mistakes in the user's own model or method
        raise UserError(
            f"{config.model.name} with {config.method.name} cannot be built: {where_raised(error)}"
        ) from error
    if isinstance(reader, StreamReader) and estimator.method.balancing_option:
        raise UserError(
            f"method.{estimator.method.balancing_option}: how many samples of a stream have an age is not known before "
            "they are read; set it to false, or index the shards and use reader: index"
        )
    estimator.card.gender = start is not None and start.gender
    estimator.card.age = start is not None and start.age and not method_changes(estimator.card, start)
    age_counts = torch.from_numpy(reader.age_counts(**asdict(config.ages)))
    if age_counts.any():
        estimator.method.fit_prior(age_counts)
    return estimator


def init_from(estimator: Estimator, checkpoint: str) -> list[str]:
    """Load all weights of a checkpoint. Heads of tasks that it did not learn, or of another method, begin anew.

    Args:
        estimator: gets the weights.
        checkpoint: an address for ``locate``.

    Returns:
        A line on the method's head if that begins anew, and one on the checkpoint's tasks that the run leaves out.

    Raises:
        UserError: it is missing, damaged, or of another model.
    """
    source = locate(checkpoint)
    require_files(source, MODEL_FILE, CARD_FILE)
    card = Card.load(source)
    require_same_model(estimator.card, card, checkpoint)
    estimator.load_weights(source, fresh_weights(estimator.card, card))
    changes = method_changes(estimator.card, card)
    listed = ", ".join(f"{name} {value} ({trained})" for name, (value, trained) in changes.items())
    lines = [f"the head for ages begins anew: {listed}"] if changes else []
    lines += [] if card.age or changes else ["it learnt no ages, so the head for them begins anew"]
    run_tasks = {task.name for task in estimator.tasks}
    if left_out := [task["name"] for task in card.tasks if task["name"] not in run_tasks]:
        lines.append(f"tasks that this run does not learn are left out: {first_few(left_out, 10)}")
    return [f"--init-from {checkpoint}: {line}" for line in lines]
