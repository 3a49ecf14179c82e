"""Checks that the data has what a run learns and what its evaluations compare: before step 1, and of a stream later."""

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
"""Samples of which not all lack a label by chance."""


def check_train_labels(config: RunConfig, reader: IndexReader | StreamReader, inputs: Sequence[str]) -> dict[str, int]:
    """Raise UserError where a run has nothing to learn.

    Returns:
        How many training samples with an image have each label; of a stream nothing is known before it is read.
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
    """Raise UserError where the data of ``data.val`` cannot be evaluated: no labels of what is learnt, or no images."""
    labelled = {name: choices for name, choices in classes.items() if choices is not None}
    samples, known = count_labels([index], inputs, task_columns(index, labelled))
    known |= {IDENTITY: index.num_identities} if len(labelled) < len(classes) else {}
    learnt = {IDENTITY, *_loss_weights(config)}.difference(unlearnt)
    known = {name: count for name, count in known.items() if name in learnt}
    _require_labels("data.val", config.data.val, samples, known, inputs)
    _require_decodable(index, inputs)


def _loss_weights(config: RunConfig) -> dict[str, float]:
    """The weights of the losses, by the labels that these take."""
    return {"age": 1.0, "gender": config.optim.gender_weight} | {task.name: task.weight for task in config.tasks}


def _has_teachers(config: RunConfig) -> bool:
    """Whether a run learns teachers' answers, which every image has."""
    return bool(config.optim.teachers and config.optim.teacher_weight)


def _taught(config: RunConfig) -> set[str]:
    """The labels that teachers answer for every image: the age, and the gender where one of them estimates it."""
    if not _has_teachers(config):
        return set()
    folders = [locate(teacher) for teacher in config.optim.teachers]
    for folder in folders:
        require_files(folder, CARD_FILE)
    return {"age", "gender"} if any(Card.load(folder).gender for folder in folders) else {"age"}


def unlearnt(config: RunConfig, labels: Mapping[str, int]) -> set[str]:
    """The labels that a run does not learn: of no weight, or known of no sample and no teacher.

    Args:
        config: of the run.
        labels: how many samples have each label, as far as that is known.
    """
    unknown = {name for name, count in labels.items() if not count} - _taught(config)
    return unknown | {name for name, weight in _loss_weights(config).items() if not weight}


def count_labels(
    indexes: Sequence[ShardIndex], inputs: Sequence[str], tasks: Mapping[str, np.ndarray]
) -> tuple[int, dict[str, int]]:
    """How many samples have an image that the model looks at, and how many of these have each label.

    Args:
        indexes: of one data set, or of several.
        inputs: images that the model looks at, of ``face`` and ``body``.
        tasks: (N,) labels of every task over all indexes, NaN where unknown.

    Returns:
        The samples with an image, and the known labels of ``age``, ``gender`` and every task.
    """
    has_image = np.concatenate([index.has_image(inputs) for index in indexes])
    age, gender = (np.concatenate([index.columns[name] for index in indexes]) for name in ("age_lo", "gender"))
    is_labelled = {"age": ~np.isnan(age), "gender": gender != NO_CODE} | {
        name: ~np.isnan(column) for name, column in tasks.items()
    }
    return int(has_image.sum()), {name: int((has_image & mask).sum()) for name, mask in is_labelled.items()}


def _require_labels(option: str, folder: object, samples: int, known: Mapping[str, int], inputs: Sequence[str]) -> None:
    """Raise UserError where no sample has an image that the model looks at, or a label.

    Args:
        option: ``data.train`` or ``data.val``.
        folder: where the data is, for the message.
        samples, known: from ``count_labels``, of the labels that matter.
        inputs: images that the model looks at.
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
    """Raise UserError where samples taught nothing, as those of a stream may, whose labels nobody knows before.

    Args:
        loss: the mean over the samples, of all ranks.
        samples: how many; of few, all may lack a label by chance.
        epoch: samples in one.
    """
    if not loss and samples >= min(_MANY, epoch):
        raise UserError(
            f"data.train: none of {samples} samples had an image and a label to learn; `mivolo-lite index` says what "
            "a shard holds, and `mivolo-lite pack shards` converts other images and names of labels"
        )


def _require_decodable(index: ShardIndex, inputs: Sequence[str]) -> None:
    """Raise UserError where none of 256 images, evenly spaced, can be decoded. A few are counted where they are met.

    Args:
        index: of ``data.val``, in which some sample has an image.
        inputs: images that the model looks at.
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
