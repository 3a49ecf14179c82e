"""One optimizer step: the same number is minimised by 1 process and by 64."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from mivolo_lite.data.batch import Batch
from mivolo_lite.data.randomness import seed_of
from mivolo_lite.estimator import Estimator
from mivolo_lite.tasks import Task


@dataclass(frozen=True)
class StepResult:
    """What a step did, on this rank: its share of the mean losses over all ranks, and the gradient's norm."""

    age_loss: Tensor
    gender_loss: Tensor
    task_losses: list[Tensor]
    grad_norm: Tensor


class OptimizerStep:
    """Forward, backward and update over one global batch.

    Losses are divided by the number of known labels over all ranks and micro-batches, so neither the world size, nor
    the accumulation, nor where the unknown labels fall changes the objective.

    Args:
        accelerator: carries out backward and clipping.
        model: the prepared model.
        optimizer: the prepared optimizer.
        gender_weight: weight of the gender loss.
        clip_norm: largest gradient norm, 0 for none.
        seed: of dropout and drop path, which are drawn anew from (seed, step, rank), so that resuming needs no state.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        optimizer: Optimizer,
        gender_weight: float,
        clip_norm: float,
        seed: int,
    ):
        self.accelerator, self.model, self.optimizer = accelerator, model, optimizer
        self.estimator: Estimator = accelerator.unwrap_model(model, keep_torch_compile=False)
        self.gender_weight, self.clip_norm, self.seed = gender_weight, clip_norm, seed
        self.tasks = self.estimator.tasks

    def __call__(self, batches: Sequence[Batch], step: int) -> StepResult:
        """Learn from this rank's micro-batches of optimizer step number ``step``."""
        torch.manual_seed(seed_of(self.seed, step, self.accelerator.process_index))
        known_ages, known_genders, *known = self._known_labels(batches)
        age_loss, gender_loss, *task_losses = torch.zeros(2 + len(self.tasks), device=self.accelerator.device)
        outputs = []
        for number, batch in enumerate(batches):
            with self._synchronised(last=number == len(batches) - 1):
                output = self.model(**batch.pictures())
                age = _masked_sum(self.estimator.method.loss(output["age"], batch.age), batch.age.known) / known_ages
                gender = F.cross_entropy(output["gender"].float(), batch.gender, reduction="none")
                gender = _masked_sum(gender, batch.gender_known) / known_genders
                tasks = [_task_loss(task, output, batch) / count for task, count in zip(self.tasks, known, strict=True)]
                weighted = sum(task.weight * loss for task, loss in zip(self.tasks, tasks, strict=True))
                # Data parallel engines average gradients over the ranks; this loss is to be summed over them.
                loss = (age + self.gender_weight * gender + weighted) * self.accelerator.num_processes
                self.accelerator.backward(loss)
            age_loss, gender_loss = age_loss + age.detach(), gender_loss + gender.detach()
            task_losses = [total + loss.detach() for total, loss in zip(task_losses, tasks, strict=True)]
            outputs.append(output["age"].detach())
        grad_norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.clip_norm or float("inf"))
        self.optimizer.step()
        self.optimizer.zero_grad()
        for output, batch in zip(outputs, batches, strict=True):
            self.estimator.method.refit(output, batch.age)
        return StepResult(age_loss, gender_loss, task_losses, grad_norm)

    def _known_labels(self, batches: Sequence[Batch]) -> Tensor:
        """(2 + tasks,) how many ages, genders and labels of each task the whole step knows, at least 1 each."""
        masks = [
            [batch.age.known, batch.gender_known, *(batch.tasks[task.name].known for task in self.tasks)]
            for batch in batches
        ]
        known = torch.stack([torch.stack([mask.sum() for mask in row]) for row in masks]).sum(0)
        return self.accelerator.reduce(known.float()).clamp(min=1)

    def _synchronised(self, last: bool):
        """Gradients travel between ranks with the last micro-batch alone."""
        return nullcontext() if last else self.accelerator.no_sync(self.model)


def _task_loss(task: Task, output: dict[str, Tensor], batch: Batch) -> Tensor:
    """The sum of a task's loss over the batch's known labels."""
    label = batch.tasks[task.name]
    return _masked_sum(task.penalty(output[task.name], label.value), label.known)


def _masked_sum(loss: Tensor, known: Tensor) -> Tensor:
    # torch.where, not a product: nothing that an unknown label gives may reach the gradient.
    return torch.where(known, loss, 0.0).sum()
