"""Runs a model over every sample of a data set, each exactly once at any world size."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from tqdm import tqdm

from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.evaluation.predictions import Embeddings, Predictions, TaskAnswers
from mivolo_lite.labels import GENDERS, NO_CODE
from mivolo_lite.loading.batch import Batch
from mivolo_lite.loading.device import to_device
from mivolo_lite.loading.task_labels import age_stds, identities, task_columns
from mivolo_lite.loading.workers import BatchLoader
from mivolo_lite.methods.distribution import spread
from mivolo_lite.methods.interface import AgeEstimate, AgeSpan
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.tasks import Task


class Interrupted(Exception):
    """The process must end before the evaluation is complete."""


@dataclass(frozen=True)
class Evaluator:
    """An estimator and the samples that all ranks together run it over.

    Attributes:
        estimator: on the accelerator's device when it is run.
        index: the data.
        accelerator: of the ranks.
        input_sets: the inputs that the estimator gets, of ``face`` and ``body``, by the name of the result.
    """

    estimator: Estimator
    index: ShardIndex
    accelerator: Accelerator
    input_sets: Mapping[str | None, tuple[str, ...]]

    @property
    def inputs(self) -> tuple[str, ...]:
        """The estimator's inputs that are in any of the input sets."""
        return tuple(name for name in self.estimator.inputs if any(name in names for names in self.input_sets.values()))


def predict(
    estimator: Estimator,
    loader: BatchLoader,
    index: ShardIndex,
    accelerator: Accelerator,
    should_stop: Callable[[], bool] = lambda: False,
) -> Predictions:
    """The predictions for every sample from all inputs of the estimator; see ``predict_each``.

    Raises:
        UserError: likewise, or no sample has such an image.
        Interrupted: likewise.
    """
    evaluator = Evaluator(estimator, index, accelerator, {None: estimator.inputs})
    predictions = predict_each(evaluator, loader, should_stop)[None]
    if predictions.missing == len(predictions.key):
        why = f"; {len(predictions.unreadable)} images cannot be decoded" if predictions.unreadable else ""
        raise UserError(f"{no_image(index, estimator.inputs)}{why}")
    return predictions


def no_image(index: ShardIndex, inputs: Sequence[str], model: str = "the model") -> str:
    """The error for a data set in which no sample has an image for the model."""
    return f"{index.folder}: no sample has a {' or a '.join(inputs)}, which is all that {model} looks at"


@torch.inference_mode()
def predict_each(
    evaluator: Evaluator, loader: BatchLoader, should_stop: Callable[[], bool] = lambda: False
) -> dict[str | None, Predictions]:
    """Run the estimator over the index, once for each set of inputs. Every rank gets all predictions.

    Args:
        evaluator: the model and the data.
        loader: reads every sample of the index once over all ranks, with all images of the input sets.
        should_stop: called before every batch; returns the same on all ranks.

    Raises:
        UserError: an estimate is not finite.
        Interrupted: ``should_stop`` returned True.
    """
    estimator, index, input_sets = evaluator.estimator, evaluator.index, evaluator.input_sets
    tasks = [task for task in estimator.tasks if task.kind != "embedding" or index.num_identities]
    rows: dict[str | None, list[tuple[np.ndarray, ...]]] = {name: [] for name in input_sets}
    unreadable: set[str] = set()
    for name, batch, output in raw_outputs(evaluator, loader, "evaluating"):
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
        predictions = {name: _without_gender(prediction) for name, prediction in predictions.items()}
    return {name: replace(prediction, unreadable=images) for name, prediction in predictions.items()}


def gender_logit(estimator: Estimator, output: dict[str, Tensor]) -> Tensor:
    """(B,) float32 log odds of ``F`` with the calibrated temperature; 0 if the model has no gender."""
    logits = estimator.gender_logits(output)
    if logits is None:
        return torch.zeros(len(output["age"]), device=output["age"].device)
    female = GENDERS.index("F")
    return logits[:, female] - logits[:, 1 - female]


def raw_outputs(
    evaluator: Evaluator, loader: BatchLoader, description: str
) -> Iterator[tuple[str | None, Batch, dict[str, Tensor]]]:
    """The estimator's raw outputs for every batch of this rank, once for each set of inputs.

    Args:
        evaluator, loader: as for ``predict_each``; to be iterated in inference mode.
        description: of the progress bar.
    """
    estimator, accelerator = evaluator.estimator.eval(), evaluator.accelerator
    hidden = None if accelerator.is_main_process else True  # None: only on a terminal
    batches = to_device(loader, accelerator.device)
    for batch in tqdm(batches, description, len(loader), leave=False, unit="batch", disable=hidden):
        for name, images in evaluator.input_sets.items():
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
    order, identity = np.argsort(sample), identities(index)
    assert np.array_equal(sample[order], np.arange(len(index))), "every sample is counted exactly once"
    columns, logit = index.columns, logit[order].astype(np.float64)
    spread = np.where(np.isnan(age), np.nan, spread)[order].astype(np.float64)
    answer = {task.name: answer[order] for task, answer in zip(tasks, answers, strict=True)}
    labelled = [task for task in tasks if task.kind != "embedding"]
    truth = task_columns(index, {task.name: task.classes for task in labelled})
    return Predictions(
        key=[index.key(sample_number) for sample_number in range(len(index))],
        age=age[order].astype(np.float64),
        female=_probability(logit),
        age_lo=columns["age_lo"].astype(np.float64),
        age_hi=columns["age_hi"].astype(np.float64),
        gender=_names(columns["gender"], GENDERS),
        group=_names(columns["group"], index.groups),
        tasks={
            task.name: TaskAnswers(task.kind, answer[task.name], truth[task.name])
            for task in labelled
            if not np.isnan(truth[task.name]).all()
        },
        spread=None if np.isnan(spread).all() else spread,
        gender_logit=logit,
        age_std=age_stds(index),
        identity=None if np.isnan(identity).all() else identity.astype(np.float64),
        embeddings={task.name: Embeddings(answer[task.name], identity) for task in tasks if task.kind == "embedding"},
    )


def _probability(logit: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-logit))


def _without_gender(predictions: Predictions) -> Predictions:
    nothing = np.full(len(predictions.key), np.nan)
    return replace(predictions, female=nothing, gender_logit=nothing)


def _names(codes: np.ndarray, names: Sequence[str]) -> list[str | None]:
    return [None if code == NO_CODE else names[code] for code in codes.tolist()]
