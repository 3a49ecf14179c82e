"""What a model says of every sample of a data set, each exactly once at any world size."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from tqdm import tqdm

from mivolo_lite.data.index import ShardIndex
from mivolo_lite.data.labels import GENDERS, NO_CODE
from mivolo_lite.data.task_labels import task_columns
from mivolo_lite.data.workers import BatchLoader
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.tasks import Task


@dataclass(frozen=True)
class TaskAnswers:
    """What a model says of every sample for one task, beside the truth.

    Attributes:
        kind: of the task.
        answer: (N,) place of the likeliest class, or the number.
        truth: (N,) likewise, NaN where unknown.
    """

    kind: str
    answer: np.ndarray
    truth: np.ndarray


@dataclass(frozen=True)
class Predictions:
    """Estimates beside the truth, one row a sample, in the order of the index.

    Attributes:
        key: (N,) sample keys.
        age: (N,) estimated age in years, not rounded; NaN where the sample has none of the pictures shown.
        female: (N,) estimated probability of gender ``F``, NaN likewise.
        age_lo, age_hi: (N,) true age in years, NaN where unknown.
        gender, group: (N,) true names, None where unknown.
        tasks: the answers to the other tasks of which these samples know anything, by their names.
    """

    key: list[str]
    age: np.ndarray
    female: np.ndarray
    age_lo: np.ndarray
    age_hi: np.ndarray
    gender: list[str | None]
    group: list[str | None]
    tasks: dict[str, TaskAnswers] = field(default_factory=dict)

    @property
    def missing(self) -> int:
        """Samples without an estimate."""
        return int(np.isnan(self.age).sum())

    def true_age(self, row: int) -> str:
        """A row's age as the CSV has it: a number, ``lo;hi``, or nothing where it is unknown."""
        lo, hi = self.age_lo[row], self.age_hi[row]
        if np.isnan(lo):
            return ""
        return f"{lo:g}" if lo == hi else f"{lo:g};{hi:g}"


def write_csv(columns: Mapping[str | None, Predictions], path: Path) -> None:
    """``key,age,age_pred,gender,gender_prob,group``: true age (a range as ``lo;hi``), estimate, true gender, estimated
    probability of ``F``, true group; what is unknown or not estimated is empty.

    Args:
        columns: estimates for the same samples. ``age_pred`` and ``gender_prob`` of one with a name end in ``_name``.
        path: the file.
    """
    truth = next(iter(columns.values()))
    ends = ["" if name is None else f"_{name}" for name in columns]
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        ages, genders = ([f"{estimate}{end}" for end in ends] for estimate in ("age_pred", "gender_prob"))
        writer.writerow(["key", "age", *ages, "gender", *genders, "group"])
        for row, key in enumerate(truth.key):
            ages = [_number(column.age[row], 4) for column in columns.values()]
            genders = [_number(column.female[row], 6) for column in columns.values()]
            writer.writerow([key, truth.true_age(row), *ages, truth.gender[row], *genders, truth.group[row]])


def predict(estimator: Estimator, loader: BatchLoader, index: ShardIndex, accelerator: Accelerator) -> Predictions:
    """What the estimator says of every sample, shown all that it looks at; see ``predict_each``.

    Raises:
        UserError: likewise, or no sample has what it looks at.
    """
    predictions = predict_each(estimator, loader, index, accelerator, {None: estimator.inputs})[None]
    if predictions.missing == len(predictions.key):
        raise UserError(f"{index.folder}: no sample has a {estimator.inputs[0]}, which is all that the model looks at")
    return predictions


@torch.inference_mode()
def predict_each(
    estimator: Estimator,
    loader: BatchLoader,
    index: ShardIndex,
    accelerator: Accelerator,
    shown: Mapping[str | None, tuple[str, ...]],
) -> dict[str | None, Predictions]:
    """Run the estimator over the index, once for each set of pictures shown. Every rank gets all predictions.

    Args:
        estimator: on the accelerator's device.
        loader: reads every sample of the index once over all ranks, with all pictures that are to be shown.
        index, accelerator: the data and the device.
        shown: of ``face`` and ``body``, by the name of the predictions.

    Raises:
        UserError: a picture cannot be decoded, or the estimates are no numbers.
    """
    estimator.eval()
    tasks = [task for task in estimator.tasks if task.kind != "embedding"]
    rows: dict[str | None, list[tuple[np.ndarray, ...]]] = {name: [] for name in shown}
    for batch in tqdm(loader, desc="evaluating", unit="batch", leave=False, disable=_bar_hidden(accelerator)):
        if batch.broken:
            raise UserError(f"{index.folder}: {batch.broken[0]}; pack the data set again, or mend the shard")
        batch = batch.to(accelerator.device)
        for name, pictures in shown.items():
            with accelerator.autocast():
                output = estimator(**batch.pictures(pictures))
            age, gender = estimator.estimate(output)
            answers = [task.answer(output[task.name]) for task in tasks]
            estimates = _where_seen(batch.seen(pictures), age.age, gender[:, GENDERS.index("F")], *answers)
            rows[name].append(tuple(column[batch.counted].cpu().numpy() for column in (batch.sample, *estimates)))
    return {name: _assemble(gather_object(rows[name]), index, tasks) for name in shown}


def _where_seen(seen: Tensor, *estimates: Tensor) -> list[Tensor]:
    """(B,) estimates, NaN for samples of which nothing was seen: what a model says of those is not about them."""
    if not all(torch.isfinite(estimate[seen]).all() for estimate in estimates):
        raise UserError("the model's estimates are not numbers: its training diverged; train it with a lower optim.lr")
    return [torch.where(seen, estimate, torch.nan) for estimate in estimates]


def _bar_hidden(accelerator: Accelerator) -> bool | None:
    """On other ranks, and by tqdm's own judgement where nobody looks."""
    return None if accelerator.is_main_process else True


def _assemble(rows: list[tuple[np.ndarray, ...]], index: ShardIndex, tasks: list[Task]) -> Predictions:
    sample, age, female, *answers = (np.concatenate(column) for column in zip(*rows, strict=True))
    order = np.argsort(sample)
    assert np.array_equal(sample[order], np.arange(len(index))), "every sample is counted exactly once"
    columns = index.columns
    truth = task_columns(index, {task.name: task.classes for task in tasks})
    return Predictions(
        [index.key(number) for number in range(len(index))],
        age[order].astype(np.float64),
        female[order].astype(np.float64),
        columns["age_lo"].astype(np.float64),
        columns["age_hi"].astype(np.float64),
        _names(columns["gender"], GENDERS),
        _names(columns["group"], index.groups),
        {
            task.name: TaskAnswers(task.kind, answer[order], truth[task.name])
            for task, answer in zip(tasks, answers, strict=True)
            if not np.isnan(truth[task.name]).all()
        },
    )


def _names(codes: np.ndarray, names) -> list[str | None]:
    return [None if code == NO_CODE else names[code] for code in codes.tolist()]


def _number(value: float, digits: int) -> str:
    return "" if np.isnan(value) else f"{value:.{digits}f}"
