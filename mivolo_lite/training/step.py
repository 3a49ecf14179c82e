"""One optimizer step, with the same objective for 1 process and for 64."""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mivolo_lite.batch_labels import AgeRange
from mivolo_lite.distributed.data_parallel import DataParallel
from mivolo_lite.distributed.flat_reduce import FlatReduce
from mivolo_lite.distributed.preemption import own_flags
from mivolo_lite.errors import UserError
from mivolo_lite.interfaces import interface_error
from mivolo_lite.loading.batch import Batch
from mivolo_lite.loading.mixup import mix
from mivolo_lite.models.missing import uncounted_batches
from mivolo_lite.randomness import seed_of
from mivolo_lite.tasks import Task
from mivolo_lite.training.distillation import Teachers
from mivolo_lite.training.dro import GroupDro
from mivolo_lite.training.optim import OptimConfig


class Diverged(UserError):
    """The loss or its gradient is not finite."""


@dataclass(frozen=True)
class StepResult:
    """The results of a step.

    Attributes:
        losses: (3 + tasks,) this rank's share of the mean losses over all ranks: of age, gender, each task, and the
            distance to the teachers' answers, 0 without teachers.
        grad_norm: of the gradient, before clipping.
        should_stop: whether any rank had been preempted when the step began; equal on all ranks.
        save_asked: whether the main process requested a checkpoint then.
    """

    losses: Tensor
    grad_norm: Tensor | float
    should_stop: bool = False
    save_asked: bool = False


class OptimizerStep:
    """Forward, backward and update over one global batch.

    Losses are divided by the number of known labels over all ranks and micro-batches. So the world size, the
    accumulation and the positions of unknown labels do not change the objective. Samples' weights do not change the
    divisor: their mean over the training set is 1, so the mean gradient is that of the weighted training set. If it
    were a batch's sum of weights, rare samples would weigh less in batches with more of them. The age loss is divided
    by its method's ``loss_unit``, so that its scale is that of the others.

    Args:
        engine: carries out backward, clipping and update.
        optim: the weights of the losses.
        seed: of dropout and drop path, which are sampled by (seed, step, rank), so that resuming needs no state.
        weights: (N,) of the training samples, in all their losses; None if all are equal.
        dro: also weighs the age losses, by those of earlier steps, since a micro-batch's weights must be known before
            its backward pass.
        teachers: whose answers to the images are learnt in addition to the labels, also if labels are unknown; the
            distance to their answers is a mean over all samples.
    """

    def __init__(
        self,
        engine: DataParallel,
        optim: OptimConfig,
        seed: int,
        weights: Tensor | None = None,
        dro: GroupDro | None = None,
        teachers: Teachers | None = None,
    ):
        self.engine, self.optim, self.seed = engine, optim, seed
        self.weights, self.dro, self.teachers = weights, dro, teachers
        self.accelerator, self.method, self.tasks = engine.accelerator, engine.estimator.method, engine.estimator.tasks
        self.model = engine.estimator.model
        self.statistics = batch_statistics(engine.estimator) if self.accelerator.num_processes > 1 else []

    def __call__(self, batches: Sequence[Batch], step: int, save: bool = False) -> StepResult:
        """Train on this rank's micro-batches of optimizer step ``step``.

        Args:
            batches: the same number on all ranks.
            step: counted from 0.
            save: whether this rank requests a checkpoint.

        Raises:
            Diverged: the loss or its gradient is not finite; on all ranks. The weights are unchanged.
        """
        torch.manual_seed(seed_of(self.seed, step, self.accelerator.process_index))
        known, flags = self._known_labels(batches, save)
        samples = sum(map(len, batches)) * self.accelerator.num_processes
        total = torch.zeros(3 + len(self.tasks), device=self.accelerator.device)
        outputs = []
        for index, (batch, parts) in enumerate(map(mix, batches)):
            last = index == len(batches) - 1
            with self.engine.micro_batch(last):
                output = self.engine.forward(batch.images())
                label_losses = [self._label_losses(output, labels, share) for labels, share in parts]
                teacher_loss = self._teacher_loss(output, batch)
                losses = torch.cat([torch.stack(label_losses).sum(0) / known, teacher_loss[None] / samples])
                total = total + losses.detach()
                outputs.append(output["age"].detach())
                if last:
                    shared = self._start_reduce(total)
                with uncounted_batches(self.model) if self.model.grad_checkpointing else nullcontext():
                    self.engine.backward(self._weighted_sum(losses))
        finite, subgroups, *statistics = shared.wait()
        grad_norm = self._update(step, finite == self.accelerator.num_processes)
        self._set_statistics(statistics)
        if self.dro is not None:
            self.dro.update(subgroups)
        age = AgeRange.concatenate([batch.age for batch in batches])  # for a mixed image, the larger part's
        self.method.refit(torch.cat(outputs), age, torch.cat([batch.sample for batch in batches]))
        # The update has waited for the GPU's work of this step, and the flags were copied long before.
        return StepResult(total, grad_norm, *map(bool, flags))

    def mean_losses(self, results: Sequence[StepResult]) -> dict[str, float]:
        """The mean losses of some steps over all ranks, and ``loss``, their weighted sum, which training minimises."""
        losses = self.accelerator.reduce(torch.stack([result.losses for result in results]).mean(0)).tolist()
        names = ["age", "gender", *(task.name for task in self.tasks), *(["teacher"] if self.teachers else [])]
        named = {f"{name}_loss": loss for name, loss in zip(names, losses, strict=False)}
        return {"loss": self._weighted_sum(losses), **named}

    def _weighted_sum(self, losses: Iterable[Any]) -> Any:
        """The loss that training minimises, from those of a ``StepResult``: tensors or numbers."""
        age, gender, *tasks, teacher = losses
        weighted = sum(task.weight * loss for task, loss in zip(self.tasks, tasks, strict=True))
        weighted = weighted + self.optim.teacher_weight * teacher
        return age / self.method.loss_unit + self.optim.gender_weight * gender + weighted

    def _update(self, step: int, finite: Tensor) -> Tensor | float:
        """Update the weights, unless a loss of any rank or the gradient is not finite. Returns the gradient's norm."""
        grad_norm, taken = self.engine.update(finite)
        if not taken:
            raise Diverged(
                f"step {step + 1}: the {'gradient' if finite else 'loss'} is not finite: the training diverged; the "
                "weights did not take this step and the checkpoints are whole: resume with --resume auto and a lower "
                "optim.lr"
            )
        return grad_norm

    def _label_losses(self, output: dict[str, Tensor], batch: Batch, share: Tensor | float) -> Tensor:
        """(2 + tasks,) the sums of the losses of age, gender and each task over the batch's known labels.

        Args:
            output: of the model.
            batch: the labels.
            share: (B,) weight of each sample's labels if images are mixed; otherwise 1.
        """
        weight = share if self.weights is None else share * self.weights[batch.sample]
        age = _masked_sum(weight * self._age_loss(output["age"], batch, share), batch.age.known)
        smoothing = self.optim.gender_smoothing
        gender = F.cross_entropy(output["gender"].float(), batch.gender, reduction="none", label_smoothing=smoothing)
        gender = _masked_sum(weight * gender, batch.gender_known)
        return torch.stack([age, gender, *(_task_loss(task, output, batch, weight) for task in self.tasks)])

    def _age_loss(self, output: Tensor, batch: Batch, share: Tensor | float) -> Tensor:
        """(B,) losses of the method, weighted by the samples' subgroups if there is a ``dro``."""
        loss = self.method.loss(output, batch.age)
        if loss.shape != batch.age.known.shape:  # it would broadcast
            raise interface_error(
                f"{type(self.method).__name__}.loss gives {tuple(loss.shape)} for {len(batch)} samples; give "
                f"({len(batch)},), one loss a sample, without a mean"
            )
        if self.dro is None:
            return loss
        self.dro.observe(loss, batch.age, batch.sample, share)
        return self.dro.factor(batch.sample) * loss

    def _teacher_loss(self, output: dict[str, Tensor], batch: Batch) -> Tensor:
        """The sum over the samples that both the model and a teacher see."""
        if self.teachers is None:
            return torch.zeros((), device=self.accelerator.device)
        with self.engine.autocast():
            answers = self.teachers.answers(batch.images())
        loss = self.teachers.loss(output, answers, self.optim.gender_weight)
        return _masked_sum(loss, batch.seen(self.teachers.student.inputs) & answers.seen.any(0))

    def _known_labels(self, batches: Sequence[Batch], save: bool) -> tuple[Tensor, Tensor]:
        """Reduce the values needed before the first backward pass. A step waits for no other reduce before it.

        Returns:
            (2 + tasks,) numbers of known ages, genders and labels of each task in the whole step, at least 1 each; and
            (2,) numbers of ranks that were preempted and that requested a checkpoint, being copied to the host.
        """
        masks = [
            [batch.age.known, batch.gender_known, *(batch.tasks[task.name].known for task in self.tasks)]
            for batch in batches
        ]
        known = torch.stack([torch.stack([mask.sum() for mask in row]) for row in masks]).sum(0)
        total = self.accelerator.reduce(torch.cat([known.float(), own_flags(self.accelerator, save)]))
        return total[:-2].clamp(min=1), total[-2:].to("cpu", non_blocking=total.is_cuda)

    def _start_reduce(self, losses: Tensor) -> FlatReduce:
        """Start to sum what ranks share in addition to the gradient, overlapping with the last backward pass.

        These are whether all losses are finite, the losses of subgroups, and running statistics: DDP would broadcast
        those of rank 0, the other engines none.
        """
        subgroups = losses.new_empty(0) if self.dro is None else self.dro.sums
        finite = torch.isfinite(losses).all().float()
        return FlatReduce([finite, subgroups, *self.statistics], self.accelerator.num_processes)

    @torch.no_grad()
    def _set_statistics(self, sums: list[Tensor]) -> None:
        """Set the running statistics of every rank to the mean over all ranks."""
        if sums:
            torch._foreach_copy_(self.statistics, torch._foreach_div(sums, self.accelerator.num_processes))


def batch_statistics(module: nn.Module) -> list[Tensor]:
    """Running means and variances that every rank computes from its own samples."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    own = [layer for layer in layers if layer.track_running_stats and not isinstance(layer, nn.SyncBatchNorm)]
    pairs = ((layer.running_mean, layer.running_var) for layer in own)
    return [statistic for pair in pairs for statistic in pair if statistic is not None]


def _task_loss(task: Task, output: dict[str, Tensor], batch: Batch, weight: Tensor | float) -> Tensor:
    """The weighted sum of a task's loss over the batch's known labels."""
    label = batch.tasks[task.name]
    return _masked_sum(weight * task.compute_loss(output[task.name], label.value), label.known)


def _masked_sum(loss: Tensor, known: Tensor) -> Tensor:
    # torch.where instead of a product: no output of an unknown label may reach the gradient.
    return torch.where(known, loss, 0.0).sum()
