"""Training, from the configuration to the best weights."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import islice

import torch
from accelerate.utils import broadcast_object_list, set_seed
from timm.layers import convert_sync_batchnorm

from mivolo_lite import __version__
from mivolo_lite.card import locate
from mivolo_lite.distributed.agreement import require_agreement
from mivolo_lite.distributed.compilation import compile_forward, without_compilation
from mivolo_lite.distributed.engine import ENGINES
from mivolo_lite.distributed.launch import setup
from mivolo_lite.distributed.preemption import Preemption
from mivolo_lite.errors import UserError
from mivolo_lite.evaluation.metrics import evaluate_predictions, validation_error
from mivolo_lite.evaluation.predict import Interrupted, predict
from mivolo_lite.evaluation.predictions import Predictions
from mivolo_lite.loading.batch import Batch
from mivolo_lite.loading.device import to_device
from mivolo_lite.loading.readers import READERS
from mivolo_lite.loading.workers import BatchLoader, eval_loader
from mivolo_lite.tasks import classes_to_learn, negated_tasks
from mivolo_lite.training.announce import announce_end, announce_start, unmeasured
from mivolo_lite.training.auto_workers import with_workers
from mivolo_lite.training.averaging import ModelEma, ModelSwa, build_average
from mivolo_lite.training.broken import BrokenImages
from mivolo_lite.training.checkpoint import Checkpointer
from mivolo_lite.training.distillation import Teachers
from mivolo_lite.training.flops import model_flops
from mivolo_lite.training.label_checks import check_train_labels, check_validation, require_learnt, unlearnt
from mivolo_lite.training.logger import RunLogger
from mivolo_lite.training.memory_format import can_train_channels_last
from mivolo_lite.training.new_estimator import init_from, new_estimator
from mivolo_lite.training.optim import build_optimizer
from mivolo_lite.training.param_groups import Freeze
from mivolo_lite.training.progress import Progress
from mivolo_lite.training.resource_checks import require_disk, require_shared_folder, require_shared_memory
from mivolo_lite.training.run_config import RunConfig, changed_options, dump_run_config, named_options, shared_options
from mivolo_lite.training.run_folder import RunFolder
from mivolo_lite.training.save_schedule import SaveSchedule
from mivolo_lite.training.schedule import meets_plateau, set_learning_rate
from mivolo_lite.training.step import Diverged, OptimizerStep, StepResult
from mivolo_lite.training.step_trace import StepTrace
from mivolo_lite.training.throughput import Throughput, in_words
from mivolo_lite.training.trackers import require_trackers, start_trackers
from mivolo_lite.training.train_state import TrainState
from mivolo_lite.training.weighting import build_weighting


class Trainer:
    """A run. Build it, then call ``train()``.

    Args:
        config: the whole run.
    """

    def __init__(self, config: RunConfig):
        self.config, optim = config, config.optim
        self.launch, self.plan, self.accelerator, self.heartbeat = setup(
            config.train.precision, optim.global_batch, optim.micro_batch, optim.clip_norm
        )
        is_main = self.accelerator.is_main_process
        self._require_same_options()
        self._check_options()
        self.classes = classes_to_learn(config.tasks)
        self.data = with_workers(config.data, self.launch, self.plan, config.train.eval_batch)
        negated = negated_tasks(config.tasks)
        self.reader = READERS[config.data.reader](self.data, config.train.seed, self.classes, negated)
        self.val_index = config.data.load(config.data.val_set)
        self._require_same_data()
        self.folder = RunFolder(config.run)
        if is_main:
            self.folder.begin(config.resume)
        require_shared_folder(self.folder, self.accelerator)
        self.checkpointer = Checkpointer(self.folder.checkpoints, self.accelerator, config.train.keep)
        self.resumed = self.checkpointer.latest() if config.resume == "auto" else None
        self.preemption, self.save_schedule = Preemption(self.accelerator), SaveSchedule(config.train.save_every)
        self._build()
        self._resume()
        self.broken = BrokenImages(self.folder, self.accelerator, config.train.max_broken, self.reader.samples)
        every = config.train.eval_every
        self.progress = Progress(self.state, optim, every, self.reader.samples, self.plan.global_batch)
        self.logger = self._start_logger()
        self.loader = self.reader.batches(
            self.estimator.inputs,
            self.plan,
            self.accelerator.process_index,
            self.state.samples_seen,
            self.progress.steps_left,
        )
        self.val_loader = self._val_loader()
        check_validation(config, self.val_index, self.estimator.inputs, self.classes, self.unlearnt)
        self._check_space()
        self.changed = changed_options(self.folder.config, config) if self.resumed and is_main else {}
        if is_main:
            self.folder.save_config(dump_run_config(config))

    def train(self) -> bool:
        """Train until the last step, with evaluations, checkpoints and logs.

        Returns:
            Whether the run is complete; otherwise it was preempted, and saved.
        """
        announce_start(self)
        is_main = self.accelerator.is_main_process
        first_start, step_seconds = (
            self.folder.begin_log(self.state.step, self.progress.total_steps) if is_main else (time.time(), 0.0)
        )
        self.throughput = Throughput(first_start, step_seconds, self.flops)
        with self.heartbeat.working():
            self._run_steps()
            self.checkpointer.wait()
        is_last = self.progress.steps_left == 0 or self._is_stale()
        complete = is_last and self.state.step == self.state.evaluated
        self.logger.log_end(self.state.step, complete, self.throughput.total())
        if complete:
            announce_end(self)
        self.close()
        return complete

    def learn_at(self, rates: Sequence[float]) -> Iterator[float]:
        """Yield the loss of one step at each learning rate in turn, without saving and evaluating.

        Raises:
            Diverged: a loss is not finite.
        """
        self.throughput = Throughput()
        self.logger.bar.reset(len(rates))
        for rate, batches in zip(rates, self._steps(), strict=False):
            result = self._take_step(batches, rate)
            self.heartbeat.progress()
            yield self.step.mean_losses([result])["loss"]

    def close(self) -> None:
        """Close the log, the heartbeat and the process group. All ranks must call it."""
        self.logger.close()
        self.heartbeat.stop()
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()

    def _run_steps(self) -> None:
        # A run that ended between saving and evaluating resumes with the evaluation.
        if self.state.evaluated < self.state.step and not self._evaluate():
            return
        if self._is_stale():
            return
        results: list[StepResult] = []
        trace = StepTrace(self.config.train.profile, self.folder.profile, self.logger)
        for batches in self._steps():
            self.estimator.method.progress = self.progress.position / self.progress.end
            result = self._take_step(batches, self.progress.learning_rate())
            results.append(result)
            trace.step()
            self.heartbeat.progress()
            self.checkpointer.check()
            if self.state.step % self.config.train.log_every == 0 or self.progress.steps_left == 0:
                self._log(results)
                results = []
            if not self._save_and_evaluate(result):
                break
        if results:  # it ends early
            self._log(results)
        trace.close()

    def _save_and_evaluate(self, result: StepResult) -> bool:
        """Save and evaluate if a step's result, or its number, requires it. Returns whether training continues."""
        evaluation_due = self.progress.evaluation_due()
        if not evaluation_due:
            self.state.evaluated = self.state.step
        if result.should_stop or evaluation_due or result.save_asked or self.save_schedule.due(self.state.step):
            self._save()
        if result.should_stop:
            self.logger.log(f"preempted: saved at step {self.state.step}")
            return False
        # After saving, so that a failure in the evaluation loses no step.
        return not evaluation_due or self._evaluate() and not self._is_stale()

    def _require_same_options(self) -> None:
        """Raise UserError if ranks were started with different options, precisions, engines or versions."""
        decided = {"precision": self.launch.resolve(self.config.train.precision), "engine": str(self.launch)}
        options = shared_options(self.config) | decided | {"mivolo_lite": __version__}
        require_agreement(options, self.accelerator)

    def _require_same_data(self) -> None:
        """Raise UserError if ranks have different data. A stream may differ between ranks."""
        train = {"data.train": self.reader.digest} if self.reader.indexes else {}
        require_agreement(train | {"data.val": self.val_index.digest}, self.accelerator)

    def _check_options(self) -> None:
        """Raise UserError for options of ``train`` that this machine or another option excludes."""
        train, launch = self.config.train, self.launch
        if train.sync_batchnorm and launch.on_cpu and launch.processes > 1:
            raise UserError("train.sync_batchnorm: torch has it on GPUs alone; set it to false")
        require_trackers(train.trackers)
        if train.compile:
            launch.require_compilable()
            if train.grad_checkpointing:
                raise UserError("train.compile and train.grad_checkpointing do not work together; set one to false")

    def _start_logger(self) -> RunLogger:
        is_main, step, trackers = self.accelerator.is_main_process, self.state.step, []
        if is_main:
            trackers = start_trackers(self.config.train.trackers, self.folder.path, named_options(self.config), step)
        return RunLogger(self.folder, self.progress.total_steps, step, is_main, trackers)

    def _val_loader(self) -> BatchLoader:
        config, ranks = self.config, (self.accelerator.process_index, self.accelerator.num_processes)
        inputs, size, batch = self.estimator.inputs, config.data.image_size, config.train.eval_batch
        return eval_loader(self.val_index, inputs, size, batch, self.data.worker_count, *ranks)

    def _build(self) -> None:
        """Build the model, the engine and the state of the run. The order fixes the use of random numbers."""
        config, device = self.config, self.accelerator.device
        set_seed(config.train.seed)  # equal on every rank, for equal initial weights
        weights_from = self.resumed or (locate(config.init_from) if config.init_from else None)
        self.estimator = new_estimator(config, self.reader, weights_from)
        self.labels = check_train_labels(config, self.reader, self.estimator.inputs)
        self.unlearnt = unlearnt(config, self.labels)
        # The head remains for the losses and for resuming; without labels its answers would be random.
        self.estimator.card.gender |= "gender" not in self.unlearnt
        self.estimator.card.age |= "age" not in self.unlearnt
        teachers = None
        if config.optim.teachers:
            teachers = Teachers(config.optim.teachers, self.estimator, config.optim.teacher_features, device)
        self.flops = model_flops(self.estimator, device, self.launch.resolve(config.train.precision))
        self._prepare_estimator()
        self._load_weights()
        self.parameters = sum(parameter.numel() for parameter in self.estimator.parameters())
        self.weights_bytes = sum(tensor.nbytes for tensor in self.estimator.state_dict().values())
        self.estimator.to(device)
        self._build_engine()
        shares = [train_set.weight for train_set in self.data.train_sets]
        weights, self.dro = build_weighting(config.optim, self.reader.indexes, shares, device)
        self.step = OptimizerStep(self.engine, config.optim, config.train.seed, weights, self.dro, teachers)
        self.average = build_average(self.engine, config.optim)
        window, block = config.data.window_blocks, config.data.block_samples
        self.state = TrainState(self.reader.digest, config.train.seed, window, block, optimizer=config.optim.name)

    def _check_space(self) -> None:
        """Raise UserError if there is no space for the loaders' batches or a checkpoint."""
        loaders = [loader for loader in (self.loader, self.val_loader) if isinstance(loader, BatchLoader)]
        require_shared_memory(sum(loader.shared_bytes for loader in loaders), self.launch.local_processes)
        copies = 3 if self.average is None else 4  # the weights, two Adam moments, and the average
        require_disk(self.folder.path, copies * self.weights_bytes)

    def _prepare_estimator(self) -> None:
        """Set activation checkpointing, batch norm, and the memory format."""
        if self.config.train.grad_checkpointing:
            self.estimator.model.set_grad_checkpointing()
        if self.config.train.sync_batchnorm and self.launch.processes > 1:
            self.estimator = convert_sync_batchnorm(self.estimator)
        works = can_train_channels_last(self.estimator, self.launch.on_cpu)
        self.estimator.channels_last = self.config.train.channels_last and works
        if self.estimator.channels_last:
            self.estimator.to(memory_format=torch.channels_last)

    def _load_weights(self) -> None:
        if self.resumed is not None:
            self.checkpointer.load_weights(self.resumed, self.estimator)
        elif self.config.init_from:
            lines = init_from(self.estimator, self.config.init_from)
            if self.accelerator.is_main_process:
                print(*lines, sep="\n", end="\n" if lines else "", flush=True)

    def _build_engine(self) -> None:
        config = self.config
        if config.train.compile:
            compile_forward(self.estimator)
        self.is_frozen: bool | None = None
        self.freeze = Freeze(self.estimator, config.train.freeze, config.train.freeze_epochs)
        optimizer = build_optimizer(self.estimator, config.optim, self.freeze.names)
        self.engine = ENGINES[self.launch.engine](self.accelerator, self.estimator, optimizer, config.optim.clip_norm)
        self.engine.is_compiled = config.train.compile

    def _resume(self) -> None:
        if self.resumed is not None:
            self.checkpointer.load(self.resumed, self.state, self.engine, self.average)
            if not isinstance(self.average, ModelSwa):
                self.state.averaged = 0  # a later start of stochastic averaging begins anew
            if self.dro is not None:
                self.dro.load(self.state.subgroups)
        self._check_best()
        if self.accelerator.is_main_process:
            evaluated = self.state.evaluated == self.state.step
            dropped = self.folder.cut_log(self.state.step if self.resumed else -1, evaluated)
            if dropped:
                print(f"{self.folder.metrics}: {dropped} lines that are no records were dropped", flush=True)

    def _check_best(self) -> None:
        """Forget the best error of a resumed run if ``best`` is gone, or if it was measured on other images.

        The resumed weights are then evaluated and become the first ``best``, even if they are the run's last.
        """
        (is_gone,) = broadcast_object_list([self.resumed is not None and not self.folder.has_best()])
        is_other = self.state.val_digest not in ("", self.val_index.digest)
        if is_other or is_gone and math.isfinite(self.state.best_mae):
            self.state.forget_best()
            if self.accelerator.is_main_process:
                reason = "data.val: another data set than before" if is_other else f"{self.folder.best}: is gone"
                print(f"{reason}; `best` is chosen anew", flush=True)
        self.state.val_digest = self.val_index.digest

    def _steps(self) -> Iterator[list[Batch]]:
        """The micro-batches of every remaining step, on the device."""
        loader = to_device(self.loader, self.accelerator.device, held=self.plan.accumulation)
        for _ in range(self.progress.steps_left):
            with self.throughput.spent("waiting"):
                batches = list(islice(loader, self.plan.accumulation))
            self.throughput.count(batches)
            for batch in batches:
                self.broken.add(batch.broken)
            yield batches

    def _take_step(self, batches: list[Batch], lr: float) -> StepResult:
        """Train on the micro-batches of one step, and count it."""
        self._begin_step(lr)
        try:
            result = self.step(batches, self.state.step, self.save_schedule.asks())
        except Diverged:
            self.checkpointer.set_aside(self.state.step)  # resuming from it would diverge again
            raise
        self._advance()
        return result

    def _begin_step(self, lr: float) -> None:
        """Set the mode of the model and the learning rate of each parameter."""
        is_frozen = self.freeze.is_on(self.progress.epoch)
        set_learning_rate(self.engine.optimizer, lr, is_frozen)
        if not self.estimator.training or is_frozen != self.is_frozen:  # train() takes 1 ms for a ResNet-50
            self.engine.model.train()
            if is_frozen:
                self.freeze.set_eval()
            self.is_frozen = is_frozen

    def _advance(self) -> None:
        """Count a completed step, and update the averaged weights."""
        self.state.step += 1
        self.state.samples_seen += self.plan.global_batch
        if isinstance(self.average, ModelEma):
            self.average.update(self.state.step)
        elif self.average is not None and self.progress.evaluation_due() and self.progress.swa_is_on():
            self.average.update()
            self.state.averaged = self.average.count
        self.logger.step()

    def _evaluate(self) -> bool:
        """Evaluate the weights, and save them if they are the best. Returns False if preempted meanwhile."""
        self.checkpointer.wait()  # loaders fork their workers, and a lock that a thread holds then stays locked in them
        try:
            with (
                self.throughput.spent("evaluating or saving"),
                without_compilation(),
                self.average.applied() if self.average is not None and self.average.is_begun else nullcontext(),
                self.engine.full_estimator() as estimator,
                self.engine.autocast(),
            ):
                predictions = predict(
                    estimator, self.val_loader, self.val_index, self.accelerator, self._preempted_while_evaluating
                )
                self._compare_with_best(predictions)
        except Interrupted:
            self.logger.log(f"preempted while evaluating: resumes with the evaluation after step {self.state.step}")
            return False
        self.state.evaluated = self.state.step
        self.checkpointer.save_state(self.state)
        return True

    def _compare_with_best(self, predictions: Predictions) -> None:
        """Log the error, count evaluations without progress, and save the current weights if they are the best."""
        metrics = evaluate_predictions(predictions)
        error = validation_error(metrics, self.unlearnt)
        is_measured = math.isfinite(error)
        if not (is_measured or self.folder.has_best()):  # logged once
            self.logger.log(f"warning: {unmeasured(self)}, so `best` has the latest weights")
        is_best = self.state.count_evaluation(error)
        self.state.plateaus += meets_plateau(self.state.stale, self.config.optim)
        self.logger.log_metrics(
            "val",
            self.state.step,
            {**metrics, "error": error if is_measured else None, "best": is_best},
            "* best" if is_best and is_measured else "",
        )
        if predictions.unreadable:
            count, first = len(predictions.unreadable), predictions.unreadable[0]
            self.logger.log(f"data.val: {count} images cannot be decoded and count as missing, first {first}")
        if is_best:
            self._save_best(metrics)

    def _is_stale(self) -> bool:
        """Whether ``patience`` evaluations have had no lower error, so that the run ends early."""
        return self.config.train.patience is not None and self.state.stale >= self.config.train.patience

    def _preempted_while_evaluating(self) -> bool:
        self.heartbeat.progress()
        return self.preemption.should_stop()

    def _save_best(self, metrics: dict) -> None:
        weights = self.engine.weights()
        if self.accelerator.is_main_process:
            self.estimator.card.metrics = {"step": self.state.step, **metrics}
            self.folder.save_best(self.estimator, weights)

    def _save(self) -> None:
        self.state.subgroups = {} if self.dro is None else self.dro.state()
        with self.throughput.spent("evaluating or saving"):
            seconds = self.checkpointer.save(self.state, self.engine, self.average)
        self.save_schedule.saved()
        self.heartbeat.progress()
        if seconds is not None:
            self.logger.log_metrics("save", self.state.step, {"seconds": seconds, **self.throughput.total()})

    def _log(self, results: list[StepResult]) -> None:
        """Log the means over the last steps, with the losses summed over the ranks' shares."""
        self.broken.gather(self.state.step, self.logger.log)
        samples, steps_left = len(results) * self.plan.global_batch, self.progress.steps_left
        losses = self.step.mean_losses(results)
        require_learnt(losses["loss"], samples, self.reader.samples)
        measured = self.throughput.interval(len(results), samples, steps_left, self.accelerator)
        self.logger.log_metrics(
            "train",
            self.state.step,
            {
                **losses,
                **({} if self.dro is None else {"subgroups": self.dro.weights()}),
                "grad_norm": float(results[-1].grad_norm),
                "lr": max(group["lr"] for group in self.engine.optimizer.param_groups),
                "epoch": self.state.samples_seen / self.reader.samples,
                "samples_seen": self.state.samples_seen,
                **measured,
                **({"passes": passes} if (passes := self.reader.passes(self.state.samples_seen)) else {}),
            },
            in_words(measured, times=not self.logger.interactive),  # the bar shows its own
        )
