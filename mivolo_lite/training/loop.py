"""Training, from the configuration to the best weights."""

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from itertools import islice

import torch
from timm.layers import convert_sync_batchnorm

from mivolo_lite.config import RunConfig, dump_run_config, named_options
from mivolo_lite.data.batch import Batch
from mivolo_lite.data.index import ShardIndex
from mivolo_lite.data.loader import eval_loader
from mivolo_lite.data.readers import READERS
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.evaluation.metrics import evaluate_predictions, validation_error
from mivolo_lite.evaluation.predictions import predict
from mivolo_lite.tasks import classes_to_learn
from mivolo_lite.training.average import WeightAverage
from mivolo_lite.training.balance import balanced_weights
from mivolo_lite.training.checkpoint import Checkpointer, TrainState
from mivolo_lite.training.dro import GroupDro
from mivolo_lite.training.engine import ENGINES
from mivolo_lite.training.heartbeat import Heartbeat
from mivolo_lite.training.journal import Journal
from mivolo_lite.training.kinds import joined_labels
from mivolo_lite.training.launch import seed_everything, start
from mivolo_lite.training.optim import build_optimizer, learning_rate, set_learning_rate
from mivolo_lite.training.preemption import Preemption
from mivolo_lite.training.run_folder import RunFolder
from mivolo_lite.training.step import OptimizerStep, StepResult


class Trainer:
    """A run. Build it, then ``train()``.

    Args:
        config: the whole run.
    """

    def __init__(self, config: RunConfig):
        self.config = config
        optim = config.optim
        self.launch, self.plan, self.accelerator = start(
            config.train.precision, optim.global_batch, optim.micro_batch, optim.clip_norm
        )
        self.heartbeat = Heartbeat(self.accelerator.process_index, self.accelerator.num_processes)
        if config.train.sync_batchnorm and self.launch.on_cpu and self.launch.processes > 1:
            raise UserError("train.sync_batchnorm: torch has it on GPUs alone; set it to false")
        self.reader = READERS[config.data.reader](config.data, config.train.seed, classes_to_learn(config.tasks))
        self.val_index = ShardIndex.load(config.data.val, config.data.cache)
        self.steps_per_epoch = self.reader.samples / config.optim.global_batch
        self.folder = RunFolder(config.run)
        self._begin_folder()
        self.broken = self.folder.broken_pictures()
        self.checkpointer = Checkpointer(self.folder.checkpoints, self.accelerator, config.train.keep)
        self.resumed = self.checkpointer.latest() if config.resume == "auto" else None
        self._build()
        self._resume()
        self.total_steps = self.state.step + self._steps_to_go()
        self.journal = Journal(self.folder, self.total_steps, self.state.step, self.accelerator.is_main_process)

    def train(self) -> bool:
        """Learn until the last step, evaluating, saving and logging on the way.

        Returns:
            Whether the run is complete; otherwise it was warned to end, and saved.
        """
        self._announce()
        preemption = Preemption(self.accelerator)
        results: list[StepResult] = []
        for batches in self._steps():
            set_learning_rate(self.engine.optimizer, self._learning_rate())
            self.estimator.method.progress = self._position() / self._end()
            self.engine.model.train()
            results.append(self.step(batches, self.state.step))
            self._advance()
            if self._due(self.config.train.log_every):
                self._log(results)
                results = []
            evaluation_due = self._evaluation_due()
            if evaluation_due:
                self._evaluate()
            warned = preemption.warned()
            if warned or evaluation_due or self._due(self.config.train.save_every):
                self._save()
            if warned:
                self.journal.say(f"warned to end: saved at step {self.state.step}")
                break
        self.journal.close()
        self.heartbeat.stop()
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        return self.state.step == self.total_steps

    def _begin_folder(self) -> None:
        if self.accelerator.is_main_process:
            self.folder.begin(self.config.resume, dump_run_config(self.config))
        self.accelerator.wait_for_everyone()

    def _build(self) -> None:
        config = self.config
        seed_everything(config.train.seed)
        self.estimator = Estimator(self._card(), self.reader.people)
        age_counts = torch.from_numpy(self.reader.age_counts(**asdict(config.ages)))
        if age_counts.any():
            self.estimator.method.fit_prior(age_counts)
        if config.train.sync_batchnorm and self.launch.processes > 1:
            self.estimator = convert_sync_batchnorm(self.estimator)
        if config.train.channels_last:
            self.estimator.to(memory_format=torch.channels_last)
        if self.resumed is not None:
            self.checkpointer.load_weights(self.resumed, self.estimator)
        elif config.start:
            self.estimator.take(config.start)
        self.parameters = sum(parameter.numel() for parameter in self.estimator.parameters())
        self.estimator.to(self.accelerator.device)
        if config.train.compile:
            self.estimator.compile()
        optimizer = build_optimizer(self.estimator, config.optim)
        self.engine = ENGINES[self.launch.engine](self.accelerator, self.estimator, optimizer, config.optim.clip_norm)
        weights, self.dro = self._weighting()
        self.step = OptimizerStep(self.engine, config.optim.gender_weight, config.train.seed, weights, self.dro)
        self.average = WeightAverage(self.engine, config.optim.ema_decay) if config.optim.ema_decay else None
        window, block = config.data.window_blocks, config.data.block_samples
        self.state = TrainState(self.reader.digest, config.train.seed, window_blocks=window, block_samples=block)

    def _weighting(self) -> tuple[torch.Tensor | None, GroupDro | None]:
        """How much the samples count, once and for all and by what the model does badly on, where that is asked for."""
        balance, dro, device = self.config.optim.balance, self.config.optim.dro, self.accelerator.device
        if balance.by == dro.by == "none":
            return None, None
        columns, groups = joined_labels(self.reader.parts)
        weights = None if balance.by == "none" else balanced_weights(columns, balance).to(device)
        return weights, None if dro.by == "none" else GroupDro(columns, groups, weights, dro, device)

    def _card(self) -> Card:
        config = self.config
        card = Card(
            model=named_options(config.model),
            method=named_options(config.method),
            span=asdict(config.ages),
            image_size=config.data.image_size,
            crop_policy=self.reader.crop_policy,
            data_digest=self.reader.digest,
            tasks=[asdict(task) for task in config.tasks],
        )
        return card.from_nothing() if self.resumed or config.start else card

    def _resume(self) -> None:
        if self.resumed is not None:
            self.checkpointer.load(self.resumed, self.state, self.engine, self.average)
            if self.dro is not None:
                self.dro.load(self.state.kinds)
        if self.accelerator.is_main_process:
            self.folder.cut_log(self.state.step if self.resumed else -1)

    def _steps(self) -> Iterator[list[Batch]]:
        """The micro-batches of every step that is left, on the device."""
        loader = iter(
            self.reader.batches(
                self.estimator.inputs,
                self.plan,
                self.accelerator.process_index,
                self.state.samples_seen,
                self.total_steps - self.state.step,
            )
        )
        for _ in range(self.state.step, self.total_steps):
            batches = list(islice(loader, self.plan.accumulation))
            for batch in batches:
                self._count_broken(batch)
            yield [batch.to(self.accelerator.device) for batch in batches]

    def _count_broken(self, batch: Batch) -> None:
        """Write undecodable pictures down; give up over the limit."""
        for picture in batch.broken:
            if picture not in self.broken:  # each pass meets it again
                self.broken.add(picture)
                self.folder.log_broken(self.state.step, picture)
        if len(self.broken) > self.config.train.max_broken:
            raise UserError(
                f"data.train: more than train.max_broken {self.config.train.max_broken} pictures "
                f"cannot be decoded; see {self.folder.broken}, and pack the data set again"
            )

    def _learning_rate(self) -> float:
        return learning_rate(self._position(), self._end(), self.steps_per_epoch, self.config.optim)

    def _steps_to_go(self) -> int:
        """By the samples seen: a run may go on with another global batch, or for fewer epochs."""
        samples = max(1, round(self.config.optim.epochs * self.reader.samples))
        return max(0, math.ceil((samples - self.state.samples_seen) / self.plan.global_batch))

    def _position(self) -> float:
        """How many steps of the present global batch the samples seen are: those done, unless it was another before."""
        return self.state.samples_seen / self.plan.global_batch

    def _end(self) -> float:
        """Where ``_position`` will be after the last step."""
        return self._position() + self.total_steps - self.state.step

    def _advance(self) -> None:
        """One more step is behind us: count it, and let the averaged weights follow."""
        self.state.step += 1
        self.state.samples_seen += self.plan.global_batch
        if self.average is not None:
            self.average.update(self.state.step)
        self.journal.step()

    def _due(self, every: int) -> bool:
        return self.state.step % every == 0 or self.state.step == self.total_steps

    def _evaluation_due(self) -> bool:
        """Whether this step was the one that completed another ``eval_every`` epochs, or the last."""
        every, position = self.config.train.eval_every * self.steps_per_epoch, self._position()
        return self.state.step == self.total_steps or position // every > (position - 1) // every

    def _evaluate(self) -> None:
        accelerator = self.accelerator
        loader = eval_loader(
            self.val_index,
            self.estimator.inputs,
            self.config.data.image_size,
            self.config.train.eval_batch,
            self.config.data.workers,
            accelerator.process_index,
            accelerator.num_processes,
        )
        with self.average.applied() if self.average is not None else nullcontext():
            with self.engine.whole_estimator() as estimator, self.engine.autocast():
                metrics = evaluate_predictions(predict(estimator, loader, self.val_index, accelerator))
            self.journal.record("val", self.state.step, metrics)
            error = validation_error(metrics)
            if error <= self.state.best_mae:  # of equals the latest, which has learnt more
                self.state.best_mae = error
                self._save_best(metrics)

    def _save_best(self, metrics: dict) -> None:
        weights = self.engine.weights()
        if self.accelerator.is_main_process:
            self.estimator.card.metrics = {"step": self.state.step, **metrics}
            self.folder.save_best(self.estimator, weights)

    def _save(self) -> None:
        self.state.kinds = {} if self.dro is None else self.dro.state()
        seconds = self.checkpointer.save(self.state, self.engine, self.average)
        if seconds is not None:
            self.journal.record("save", self.state.step, {"seconds": seconds})

    def _log(self, results: list[StepResult]) -> None:
        """The mean over the last steps, summed over the ranks' shares."""
        rows = [[result.age_loss, result.gender_loss, *result.task_losses] for result in results]
        losses = torch.stack([torch.stack(row) for row in rows]).mean(0)
        age_loss, gender_loss, *task_losses = self.accelerator.reduce(losses).tolist()
        tasks = {f"{task.name}_loss": loss for task, loss in zip(self.config.tasks, task_losses, strict=True)}
        weighted = sum(task.weight * loss for task, loss in zip(self.config.tasks, task_losses, strict=True))
        speed = len(results) * self.plan.global_batch / self.journal.lap()
        self.journal.record(
            "train",
            self.state.step,
            {
                "loss": age_loss + self.config.optim.gender_weight * gender_loss + weighted,
                "age_loss": age_loss,
                "gender_loss": gender_loss,
                **tasks,
                **({} if self.dro is None else {"kinds": self.dro.weights()}),
                "grad_norm": float(results[-1].grad_norm),
                "lr": self.engine.optimizer.param_groups[0]["lr"],
                "epoch": self.state.samples_seen / self.reader.samples,
                "samples_seen": self.state.samples_seen,
                "samples_per_second": speed,
                **({"passes": passes} if (passes := self.reader.passes(self.state.samples_seen)) else {}),
            },
        )

    def _announce(self) -> None:
        plan, parameters = self.plan, self.parameters
        self.journal.say(
            f"{self.config.model.name} with {self.config.method.name}, {parameters / 1e6:.1f} M parameters; "
            f"{self.reader.samples} training and {len(self.val_index)} validation samples; "
            f"{self.total_steps} steps of {plan.global_batch} = {plan.micro_batch} x {plan.world_size} processes x "
            f"{plan.accumulation} micro-batches on {self.accelerator.device.type}, {self.launch}"
        )
        for folder, passes in self.reader.passes(round(self._end() * plan.global_batch)).items():
            self.journal.say(f"{folder}: {passes:.3g} passes")
        if self.resumed:
            self.journal.say(f"resumed at step {self.state.step}, {self.state.samples_seen} samples seen")
