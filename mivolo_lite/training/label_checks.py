"""Checks that the data has the labels to learn and to evaluate: before step 1, and for a stream while it trains."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from mivolo_lite.card import CARD_FILE, Card, locate, require_files
from mivolo_lite.errors import UserError
from mivolo_lite.labels import IDENTITY, NO_CODE
from mivolo_lite.loading.dataset import ShardDataset
from mivolo_lite.loading.readers import IndexReader, StreamReader
from mivolo_lite.loading.task_labels import Classes, task_columns
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.sample_ref import SampleRef
from mivolo_lite.training.run_config import RunConfig

_MANY = 1000
"""Samples that do not all lack a label by chance."""


def check_train_labels(config: RunConfig, reader: IndexReader | StreamReader, inputs: Sequence[str]) -> dict[str, int]:
    """Raise UserError if a run has nothing to learn.

    Returns:
        The number of training samples with an image for each label; empty for a stream, as it is unknown.
    """
    if isinstance(reader, StreamReader):
        return {}
    samples, labels = count_labels(reader.indexes, inputs, reader.tasks)
    weights = _loss_weights(config)
    known = {name: count for name, count in labels.items() if weights[name]}
    if _has_teachers(config):
        labels["of the teachers"] = known["of the teachers"] = samples
    _require_labels("data.train", config.data.train, samples, known, inputs)
    return labels


def check_validation(
    config: RunConfig, index: ShardIndex, inputs: Sequence[str], classes: Classes, unlearnt: Collection[str]
) -> None:
    """Raise UserError if ``data.val`` cannot be evaluated: no labels of the learnt tasks, or no images."""
    labelled = {name: choices for name, choices in classes.items() if choices is not None}
    samples, known = count_labels([index], inputs, task_columns(index, labelled))
    known |= {IDENTITY: index.num_identities} if len(labelled) < len(classes) else {}
    learnt = {IDENTITY, *_loss_weights(config)}.difference(unlearnt)
    known = {name: count for name, count in known.items() if name in learnt}
    _require_labels("data.val", config.data.val, samples, known, inputs)
    _require_decodable(index, inputs)


def _loss_weights(config: RunConfig) -> dict[str, float]:
    """The weights of the losses by their labels."""
    return {"age": 1.0, "gender": config.optim.gender_weight} | {task.name: task.weight for task in config.tasks}


def _has_teachers(config: RunConfig) -> bool:
    """Whether a run learns teachers' answers, which every image has."""
    return bool(config.optim.teachers and config.optim.teacher_weight)


def _taught(config: RunConfig) -> set[str]:
    """The labels that teachers give for every image: the age, and the gender if one of them estimates it."""
    if not _has_teachers(config):
        return set()
    folders = [locate(teacher) for teacher in config.optim.teachers]
    for folder in folders:
        require_files(folder, CARD_FILE)
    return {"age", "gender"} if any(Card.load(folder).gender for folder in folders) else {"age"}


def unlearnt(config: RunConfig, labels: Mapping[str, int]) -> set[str]:
    """The labels that a run does not learn: their weight is 0, or no sample and no teacher has them.

    Args:
        config: of the run.
        labels: the number of samples with each label, if known.
    """
    unknown = {name for name, count in labels.items() if not count} - _taught(config)
    return unknown | {name for name, weight in _loss_weights(config).items() if not weight}


def count_labels(
    indexes: Sequence[ShardIndex], inputs: Sequence[str], tasks: Mapping[str, np.ndarray]
) -> tuple[int, dict[str, int]]:
    """Count the samples with an image for the model, and the labels of these.

    Args:
        indexes: of one or more data sets.
        inputs: images that the model uses, of ``face`` and ``body``.
        tasks: (N,) labels of every task over all indexes, NaN if unknown.

    Returns:
        The samples with an image, and their known labels of ``age``, ``gender`` and every task.
    """
    has_image = np.concatenate([index.has_image(inputs) for index in indexes])
    age, gender = (np.concatenate([index.columns[name] for index in indexes]) for name in ("age_lo", "gender"))
    is_labelled = {"age": ~np.isnan(age), "gender": gender != NO_CODE} | {
        name: ~np.isnan(column) for name, column in tasks.items()
    }
    return int(has_image.sum()), {name: int((has_image & mask).sum()) for name, mask in is_labelled.items()}


def _require_labels(option: str, folder: object, samples: int, known: Mapping[str, int], inputs: Sequence[str]) -> None:
    """Raise UserError if no sample has an image for the model, or none has a label.

    Args:
        option: ``data.train`` or ``data.val``.
        folder: of the data, for the message.
        samples, known: from ``count_labels``, for the labels that are required.
        inputs: images that the model uses.
    """
    if not samples:
        raise UserError(
            f"{option} {folder}: no sample has a {' or a '.join(inputs)}, which is all that the model looks at; choose "
            "another model or other data"
        )
    if not any(known.values()):
        raise UserError(
            f"{option} {folder}: none of {samples} samples has a label to learn ({', '.join(known)}); "
            "`mivolo-lite index` names the fields that the samples' JSON has"
        )


def require_learnt(loss: float, samples: int, epoch: int) -> None:
    """Raise UserError if no sample had a label to learn. For a stream, that is unknown before.

    Args:
        loss: mean over the samples of all ranks.
        samples: their number; if they are few, all may lack a label by chance.
        epoch: samples in an epoch.
    """
    if not loss and samples >= min(_MANY, epoch):
        raise UserError(
            f"data.train: none of {samples} samples had an image and a label to learn; `mivolo-lite index` says what "
            "a shard holds, and `mivolo-lite pack shards` converts other images and names of labels"
        )


def _require_decodable(index: ShardIndex, inputs: Sequence[str]) -> None:
    """Raise UserError if none of 256 evenly spaced images can be decoded. The evaluation counts single ones.

    Args:
        index: of ``data.val``, with at least one image.
        inputs: images that the model uses.
    """
    dataset = ShardDataset(index, inputs, image_size=8)
    tried = index.some_with_image(inputs, 256)
    broken = ""
    for sample in tried.tolist():
        batch = dataset.read([SampleRef(0, sample)])
        if bool(batch.seen(inputs)):
            return
        broken = broken or batch.broken[0]
    raise UserError(
        f"data.val {index.folder}: none of {len(tried)} images that were tried can be decoded, first {broken}; pack "
        "the data set again"
    )
