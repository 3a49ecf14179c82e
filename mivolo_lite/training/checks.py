"""Checks of what a run and its first evaluation need, before step 1: no run may fail late for a known reason."""

import math
import shutil
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn

from mivolo_lite.card import CARD_FILE, Card, locate, require_files
from mivolo_lite.errors import UserError
from mivolo_lite.files import write_text
from mivolo_lite.labels import IDENTITY, NO_CODE
from mivolo_lite.loading.dataset import ShardDataset
from mivolo_lite.loading.readers import IndexReader, StreamReader
from mivolo_lite.loading.task_labels import Classes, task_columns
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.sample_ref import SampleRef
from mivolo_lite.training.run_config import RunConfig
from mivolo_lite.training.run_folder import RunFolder

SHARED_MEMORY = Path("/dev/shm")
_DISK_PATIENCE = 15
"""Seconds in which what one node wrote must appear on the others: network file systems cache what they looked up."""


def check_train_labels(config: RunConfig, reader: IndexReader | StreamReader, inputs: Sequence[str]) -> dict[str, int]:
    """Raise UserError where a run has nothing to learn.

    Returns:
        How many training samples with an image have each label; of a stream nothing is known before it is read.
    """
    if isinstance(reader, StreamReader):
        return {}
    samples, labels = count_labels(reader.indexes, inputs, reader.tasks)
    weights = loss_weights(config)
    known = {name: count for name, count in labels.items() if weights[name]}
    if has_teachers(config):
        labels["of the teachers"] = known["of the teachers"] = samples
    require_labels("data.train", config.data.train, samples, known, inputs)
    return labels


def check_validation(
    config: RunConfig, index: ShardIndex, inputs: Sequence[str], classes: Classes, unlearnt: Collection[str]
) -> None:
    """Raise UserError where the data of ``data.val`` cannot be evaluated: no labels of what is learnt, or no images."""
    labelled = {name: choices for name, choices in classes.items() if choices is not None}
    samples, known = count_labels([index], inputs, task_columns(index, labelled))
    known |= {IDENTITY: index.num_identities} if len(labelled) < len(classes) else {}
    learnt = {IDENTITY, *loss_weights(config)}.difference(unlearnt)
    known = {name: count for name, count in known.items() if name in learnt}
    require_labels("data.val", config.data.val, samples, known, inputs)
    require_decodable("data.val", index, inputs)


def loss_weights(config: RunConfig) -> dict[str, float]:
    """The weights of the losses, by the labels that these take."""
    return {"age": 1.0, "gender": config.optim.gender_weight} | {task.name: task.weight for task in config.tasks}


def has_teachers(config: RunConfig) -> bool:
    """Whether a run learns teachers' answers, which every image has."""
    return bool(config.optim.teachers and config.optim.teacher_weight)


def taught(config: RunConfig) -> set[str]:
    """The labels that teachers answer for every image: the age, and the gender where one of them estimates it."""
    if not has_teachers(config):
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
    unknown = {name for name, count in labels.items() if not count} - taught(config)
    return unknown | {name for name, weight in loss_weights(config).items() if not weight}


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


def multiplies_channels(module: nn.Module) -> bool:
    """Whether a grouped convolution makes several channels of one, as FastViT's do.

    On CPUs, torch's channels-last backward pass of these ends the process with a segmentation fault.
    """
    convolutions = [conv for conv in module.modules() if isinstance(conv, nn.Conv2d)]
    return any(conv.groups > 1 and conv.out_channels > conv.in_channels for conv in convolutions)


def require_labels(option: str, folder: object, samples: int, known: Mapping[str, int], inputs: Sequence[str]) -> None:
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


def require_decodable(option: str, index: ShardIndex, inputs: Sequence[str]) -> None:
    """Raise UserError where none of 256 images, evenly spaced, can be decoded. A few are counted where they are met.

    Args:
        option: ``data.val``.
        index: of the data set, in which some sample has an image.
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
        f"{option} {index.folder}: none of {len(tried)} images that were tried can be decoded, first {broken}; pack "
        "the data set again"
    )


def require_shared_folder(folder: RunFolder, accelerator: Accelerator) -> None:
    """Raise UserError where a rank does not see the folder of rank 0. All ranks must call it.

    Where each node has a disk of its own under that name, training works, and none but rank 0 can resume.
    """
    host = socket.gethostname()
    token, first_host = broadcast_object_list([uuid4().hex, host])
    if accelerator.is_main_process:
        write_text(folder.probe, token)
    accelerator.wait_for_everyone()
    rank = f"rank {accelerator.process_index}" + (f" on {host}" if host != first_host else "")
    blind = gather_object([] if _has_content(folder.probe, token) else [rank])
    if accelerator.is_main_process:
        folder.probe.unlink()
    if blind:
        raise UserError(
            f"--run {folder.path}: {', '.join(blind[:4])} {'and others ' * (len(blind) > 4)}cannot see this folder of "
            f"rank 0 on {first_host}; put it on a disk that all nodes share"
        )


def _has_content(path: Path, content: str) -> bool:
    """Whether a file has this content, now or when a network file system has caught up."""
    end = time.monotonic() + _DISK_PATIENCE
    while not (path.is_file() and path.read_text(encoding="utf-8") == content):
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def require_shared_memory(needed: int, processes: int) -> None:
    """Raise UserError where the loaders' batches do not fit into shared memory.

    Args:
        needed: bytes that the training loader and the validation loader of one process need.
        processes: of this machine.
    """
    free = free_shared_memory()
    if needed * processes > free:
        raise UserError(
            f"data.workers: the batches of {processes} processes need {needed * processes / 2**20:.0f} MiB of shared "
            f"memory, {free / 2**20:.0f} MiB are free; use fewer workers or a smaller train.eval_batch, or give a "
            "container more with --shm-size"
        )


def free_shared_memory() -> float:
    """Bytes of shared memory that are free; infinite where the system does not say."""
    if not SHARED_MEMORY.is_dir():
        return math.inf
    return shutil.disk_usage(SHARED_MEMORY).free


def require_disk(folder: Path, checkpoint: int) -> None:
    """Raise UserError where the disk has no room for a checkpoint.

    Args:
        folder: of the run.
        checkpoint: its bytes.
    """
    free = shutil.disk_usage(folder).free
    if checkpoint > free:
        raise UserError(
            f"--run {folder}: a checkpoint takes {checkpoint / 2**20:.1f} MiB, the disk has {free / 2**20:.1f} MiB "
            "free; make room or choose another folder"
        )
