"""The predictions of a model for every sample of a data set, each exactly once at any world size."""

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from tqdm import tqdm

from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.evaluation.verification import verification
from mivolo_lite.files import written_csv
from mivolo_lite.labels import GENDERS, NO_CODE
from mivolo_lite.loading.batch import Batch
from mivolo_lite.loading.device import to_device
from mivolo_lite.loading.task_labels import age_stds, count_people, identities, task_columns
from mivolo_lite.loading.workers import BatchLoader
from mivolo_lite.methods.distribution import spread
from mivolo_lite.methods.interface import AgeEstimate, AgeSpan
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.tasks import Task

_EXTRA = {"age_spread": "spread", "age_lower": "lower", "age_upper": "upper"}
"""Columns of the CSV that not every model has, and where they come from."""


@dataclass(frozen=True)
class TaskAnswers:
    """The answers of a model for one task, and the truth.

    Attributes:
        kind: of the task.
        answer: (N,) place of the likeliest class, or the number.
        truth: (N,) likewise, NaN where unknown.
    """

    kind: str
    answer: np.ndarray
    truth: np.ndarray


@dataclass(frozen=True)
class Embeddings:
    """The embeddings of all samples, and the persons in them.

    Attributes:
        vector: (N, E) float32, NaN where the sample has none of the images shown.
        person: (N,) numbers of people, NaN where unknown.
    """

    vector: np.ndarray
    person: np.ndarray

    @cached_property
    def verified(self) -> dict | None:
        """The result of ``verification``."""
        return verification(self.vector, self.person)


@dataclass(frozen=True)
class Predictions:
    """Estimates and truth, one row a sample, in the order of the index.

    Attributes:
        key: (N,) sample keys.
        age: (N,) estimated age in years, not rounded; NaN where the sample has none of the images shown.
        female: (N,) estimated probability of gender ``F``, NaN likewise.
        age_lo, age_hi: (N,) true age in years, NaN where unknown.
        gender, group: (N,) true names, None where unknown.
        tasks: the answers to the other tasks for which these samples have labels, by their names.
        spread: (N,) standard deviation of the method's distribution in years, NaN where it has none; None if for all.
        lower, upper: (N,) ends of the age interval in years, NaN without an estimate; None without a calibration.
        embeddings: those of embedding tasks, by their names, where samples have identities.
        gender_logit: (N,) log odds of ``F``, NaN likewise; None where only the probability is known.
        age_std: (N,) standard deviation of the true age in years, NaN where unknown; None where no sample has one.
        unreadable: "key.input: reason" of every image that cannot be decoded; such an image counts as missing.
    """

    key: list[str]
    age: np.ndarray
    female: np.ndarray
    age_lo: np.ndarray
    age_hi: np.ndarray
    gender: list[str | None]
    group: list[str | None]
    tasks: dict[str, TaskAnswers] = field(default_factory=dict)
    spread: np.ndarray | None = None
    lower: np.ndarray | None = None
    upper: np.ndarray | None = None
    embeddings: dict[str, Embeddings] = field(default_factory=dict)
    gender_logit: np.ndarray | None = None
    unreadable: tuple[str, ...] = ()
    age_std: np.ndarray | None = None

    @property
    def log_odds(self) -> np.ndarray:
        """(N,) log odds of ``F``: the model's own, or computed from the probability."""
        if self.gender_logit is not None:
            return self.gender_logit
        probability = np.clip(self.female, np.finfo(float).tiny, 1 - np.finfo(float).epsneg)
        return np.log(probability) - np.log1p(-probability)

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
    probability of ``F``, true group; what is unknown or not estimated is empty. Then, where the model says so much,
    ``age_spread``, the standard deviation of its distribution, and ``age_lower,age_upper``, its age interval, in years.

    Args:
        columns: estimates for the same samples. The columns that are about one with a name end in ``_name``.
        path: the file.
    """
    truth = next(iter(columns.values()))
    ends = ["" if name is None else f"_{name}" for name in columns]
    with written_csv(path) as writer:
        ages, genders = ([f"{estimate}{end}" for end in ends] for estimate in ("age_pred", "gender_prob"))
        extra = [
            (f"{title}{end}", getattr(column, name))
            for title, name in _EXTRA.items()
            for end, column in zip(ends, columns.values(), strict=True)
            if getattr(column, name) is not None
        ]
        writer.writerow(["key", "age", *ages, "gender", *genders, "group", *(title for title, _ in extra)])
        for row, key in enumerate(truth.key):
            ages = [_formatted(column.age[row], 4) for column in columns.values()]
            genders = [_formatted(column.female[row], 6) for column in columns.values()]
            extras = [_formatted(values[row], 4) for _, values in extra]
            writer.writerow([key, truth.true_age(row), *ages, truth.gender[row], *genders, truth.group[row], *extras])


def read_csv(path: Path) -> dict[str | None, Predictions]:
    """Read a file of ``write_csv``, to the digits that it has. Raises UserError for any other file."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # Excel adds a mark when it saves one
            reader = csv.DictReader(file)
            rows, titles = list(reader), reader.fieldnames or []
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV in UTF-8 ({error}); evaluate again") from None
    names = [title.removeprefix("age_pred") for title in titles if title.startswith("age_pred")]
    needed = {"key", "age", "gender", "group"} | {f"gender_prob{name}" for name in names}
    if not names or not needed <= set(titles):
        raise UserError(
            f"{path}: not the predictions.csv of an evaluation: its columns are {', '.join(titles)[:200]!r}"
        )
    for line, row in enumerate(rows, start=2):
        if None in row or None in row.values() or not row["key"] or row["gender"] not in ("", *GENDERS):
            raise UserError(f"{path}: line {line} is cut or damaged; evaluate again")
    try:
        ends = [row["age"].split(";") if row["age"] else ["nan"] for row in rows]
        lo, hi = (np.array([float(pair[end_index]) for pair in ends]) for end_index in (0, -1))
        estimated = [title for title in titles if title not in ("key", "age", "gender", "group")]
        columns = {title: _float_column(rows, title) for title in estimated}
    except (ValueError, AttributeError, TypeError):
        raise UserError(f"{path}: an age or an estimate in it is not a number; evaluate again") from None
    if len(set(titles)) < len(titles) or not _are_possible(lo, hi, columns):
        raise UserError(f"{path}: holds columns twice, or numbers that no estimate is; evaluate again")
    keys = [row["key"] for row in rows]
    gender, group = ([row[name] or None for row in rows] for name in ("gender", "group"))
    return {
        name.removeprefix("_") or None: Predictions(
            keys, columns[f"age_pred{name}"], columns[f"gender_prob{name}"], lo, hi, gender, group,
            **{attribute: columns.get(f"{title}{name}") for title, attribute in _EXTRA.items()},
        )
        for name in names
    }  # fmt: skip


def _are_possible(lo: np.ndarray, hi: np.ndarray, columns: Mapping[str, np.ndarray]) -> bool:
    shares = [column for title, column in columns.items() if title.startswith("gender_prob")]
    in_order = np.isnan(lo) & np.isnan(hi) | (lo <= hi)
    finite = not any(np.isinf(column).any() for column in (lo, hi, *columns.values()))
    return finite and bool(in_order.all()) and not any(((share < 0) | (share > 1)).any() for share in shares)


class Interrupted(Exception):
    """The process must end before an evaluation is done."""


def predict(
    estimator: Estimator,
    loader: BatchLoader,
    index: ShardIndex,
    accelerator: Accelerator,
    should_stop: Callable[[], bool] = lambda: False,
) -> Predictions:
    """The predictions for every sample from all inputs of the estimator; see ``predict_each``.

    Raises:
        UserError: likewise, or no sample has what it looks at.
        Interrupted: likewise.
    """
    predictions = predict_each(estimator, loader, index, accelerator, {None: estimator.inputs}, should_stop)[None]
    if predictions.missing == len(predictions.key):
        why = f"; {len(predictions.unreadable)} images cannot be decoded" if predictions.unreadable else ""
        inputs = " or a ".join(estimator.inputs)
        raise UserError(f"{index.folder}: no sample has a {inputs}, which is all that the model looks at{why}")
    return predictions


@torch.inference_mode()
def predict_each(
    estimator: Estimator,
    loader: BatchLoader,
    index: ShardIndex,
    accelerator: Accelerator,
    input_sets: Mapping[str | None, tuple[str, ...]],
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str | None, Predictions]:
    """Run the estimator over the index, once for each set of inputs. Every rank gets all predictions.

    Args:
        estimator: on the accelerator's device.
        loader: reads every sample of the index once over all ranks, with all images of the input sets.
        index, accelerator: the data and the device.
        input_sets: of ``face`` and ``body``, by the name of the predictions.
        should_stop: asked before every batch, by all ranks; its answer is the same on all of them.

    Raises:
        UserError: the estimates are no numbers.
        Interrupted: ``should_stop`` said so.
    """
    tasks = [task for task in estimator.tasks if task.kind != "embedding" or count_people(index)]
    rows: dict[str | None, list[tuple[np.ndarray, ...]]] = {name: [] for name in input_sets}
    unreadable: set[str] = set()
    for name, batch, output in passes(estimator, loader, accelerator, input_sets, "evaluating"):
        if should_stop():
            raise Interrupted
        unreadable.update(batch.broken)
        age, _ = estimator.estimate(output)
        logit = gender_logit(estimator, output)
        answers = [task.answer(output[task.name]) for task in tasks]
        estimates = mask_unseen(batch.seen(input_sets[name]), age.age, logit, *answers)
        columns = batch.sample, _spread(age, estimator.method.span), *estimates
        rows[name].append(tuple(column[batch.valid].cpu().numpy() for column in columns))
    images = tuple(sorted(set(gather_object(sorted(unreadable)))))
    predictions = {name: _assemble(gather_object(rows[name]), index, tasks) for name in input_sets}
    if not estimator.card.gender:
        predictions = {name: _without_gender(of_inputs) for name, of_inputs in predictions.items()}
    return {name: replace(of_inputs, unreadable=images) for name, of_inputs in predictions.items()}


def gender_logit(estimator: Estimator, output: dict[str, Tensor]) -> Tensor:
    """(B,) float32 log odds of ``F``, by the calibrated temperature; 0 for all where the card has no gender."""
    logits = estimator.gender_logits(output)
    if logits is None:
        return torch.zeros(len(output["age"]), device=output["age"].device)
    female = GENDERS.index("F")
    return logits[:, female] - logits[:, 1 - female]


def images_needed(estimator: Estimator, input_sets: Mapping[str | None, tuple[str, ...]]) -> tuple[str, ...]:
    """The estimator's inputs that are in any of the input sets."""
    return tuple(name for name in estimator.inputs if any(name in names for names in input_sets.values()))


def passes(
    estimator: Estimator,
    loader: BatchLoader,
    accelerator: Accelerator,
    input_sets: Mapping[str | None, tuple[str, ...]],
    description: str,
) -> Iterator[tuple[str | None, Batch, dict[str, Tensor]]]:
    """The estimator's raw outputs for every batch of this rank, once for each set of inputs.

    Args:
        estimator, loader, accelerator, input_sets: as for ``predict_each``; to be iterated in inference mode.
        description: of the progress bar.
    """
    estimator.eval()
    hidden = None if accelerator.is_main_process else True  # None: where there is no terminal
    batches = to_device(loader, accelerator.device)
    for batch in tqdm(batches, description, len(loader), leave=False, unit="batch", disable=hidden):
        for name, images in input_sets.items():
            with accelerator.autocast():
                output = estimator(**batch.images(images))
            yield name, batch, output


def mask_unseen(has_image: Tensor, *estimates: Tensor) -> list[Tensor]:
    """(B, ...) estimates, with NaN for samples without any input image."""
    if not all(torch.isfinite(estimate[has_image]).all() for estimate in estimates):
        raise UserError("the model's estimates are not numbers: its training diverged; train it with a lower optim.lr")
    rows = [has_image.view(-1, *[1] * (estimate.dim() - 1)) for estimate in estimates]
    return [torch.where(row, estimate, torch.nan) for row, estimate in zip(rows, estimates, strict=True)]


def _spread(estimate: AgeEstimate, span: AgeSpan) -> Tensor:
    """(B,) standard deviation of the ages in years, NaN where the method has no distribution."""
    known = spread(estimate, span)
    return torch.full_like(estimate.mean, torch.nan) if known is None else known


def _assemble(rows: list[tuple[np.ndarray, ...]], index: ShardIndex, tasks: list[Task]) -> Predictions:
    sample, spread, age, logit, *answers = (np.concatenate(column) for column in zip(*rows, strict=True))
    order = np.argsort(sample)
    assert np.array_equal(sample[order], np.arange(len(index))), "every sample is counted exactly once"
    columns, logit = index.columns, logit[order].astype(np.float64)
    spread = np.where(np.isnan(age), np.nan, spread)[order].astype(np.float64)
    answer = {task.name: answer[order] for task, answer in zip(tasks, answers, strict=True)}
    labelled = [task for task in tasks if task.kind != "embedding"]
    truth = task_columns(index, {task.name: task.classes for task in labelled})
    return Predictions(
        [index.key(sample_number) for sample_number in range(len(index))],
        age[order].astype(np.float64),
        _probability(logit),
        columns["age_lo"].astype(np.float64),
        columns["age_hi"].astype(np.float64),
        _names(columns["gender"], GENDERS),
        _names(columns["group"], index.groups),
        {
            task.name: TaskAnswers(task.kind, answer[task.name], truth[task.name])
            for task in labelled
            if not np.isnan(truth[task.name]).all()
        },
        None if np.isnan(spread).all() else spread,
        gender_logit=logit,
        age_std=age_stds(index),
        embeddings={
            task.name: Embeddings(answer[task.name], identities(index)) for task in tasks if task.kind == "embedding"
        },
    )


def _probability(logit: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-logit))


def _without_gender(predictions: Predictions) -> Predictions:
    nothing = np.full(len(predictions.key), np.nan)
    return replace(predictions, female=nothing, gender_logit=nothing)


def _names(codes: np.ndarray, names) -> list[str | None]:
    return [None if code == NO_CODE else names[code] for code in codes.tolist()]


def _float_column(rows: list[dict[str, str]], title: str) -> np.ndarray:
    return np.array([float(row[title] or "nan") for row in rows])


def _formatted(value: float, digits: int) -> str:
    return "" if np.isnan(value) else f"{value:.{digits}f}"
