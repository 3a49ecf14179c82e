"""Estimates for crops, as numbers and words."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import compress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.evaluation.calibration.conformal import age_intervals
from mivolo_lite.evaluation.predict import gender_logit
from mivolo_lite.images.jpeg import decode
from mivolo_lite.images.letterbox import letterbox
from mivolo_lite.images.packed import Images
from mivolo_lite.inference.people import Person, TaskAnswer, likelier_gender
from mivolo_lite.methods.distribution import spread
from mivolo_lite.packing.sources.cutting import Crops
from mivolo_lite.tasks import Task


class Answers:
    """Runs an estimator on crops. It is thread-safe.

    Args:
        estimator: on its device, in evaluation mode.
        batch: people in one forward pass.
        half: compute in float16, or in bfloat16 on a CPU, by autocast.

    Raises:
        UserError: ``batch`` is not a whole number above 0.
    """

    def __init__(self, estimator: Estimator, batch: int, half: bool) -> None:
        if not isinstance(batch, int) or batch < 1:
            raise UserError(f"batch {batch!r}: give the people of one forward pass, a whole number above 0")
        self.estimator, self.batch, self.half = estimator, batch, half
        self.device = estimator.device

    def __call__(self, crops: Sequence[Crops]) -> list[Person | None]:
        """The people with their estimates, in the order of the crops; None for a person without any crop.

        Args:
            crops: only of the model's inputs.
        """
        has_image = [crop.face is not None or crop.body is not None for crop in crops]
        seen = list(compress(crops, has_image))
        answers = (answer for start in range(0, len(seen), self.batch) for answer in self._of_batch(seen, start))
        return [next(answers) if has else None for has in has_image]

    @torch.inference_mode()
    def _of_batch(self, crops: Sequence[Crops], start: int) -> Iterator[Person]:
        batch = crops[start : start + self.batch]
        images = {name: self._images([getattr(crop, name) for crop in batch]) for name in self.estimator.inputs}
        with self._autocast():
            output = self.estimator(**images, batch=len(batch))
        if not all(torch.isfinite(values).all() for values in output.values()):
            raise UserError("the model's estimates are not numbers: its training diverged; use another checkpoint")
        return self._answers(output)

    def _images(self, jpegs: Sequence[bytes | None]) -> Images | None:
        rows = [row for row, jpeg in enumerate(jpegs) if jpeg is not None]
        if not rows:
            return None
        size = self.estimator.card.image_size
        pixels = np.stack([letterbox(decode(jpeg), size) for jpeg in jpegs if jpeg is not None])
        return Images(torch.from_numpy(pixels).movedim(-1, 1).to(self.device), torch.tensor(rows, device=self.device))

    def _autocast(self) -> AbstractContextManager[Any]:
        if not self.half:
            return nullcontext()
        dtype = torch.bfloat16 if self.device.type == "cpu" else torch.float16
        return torch.autocast(self.device.type, dtype)

    def _answers(self, output: dict[str, Tensor]) -> Iterator[Person]:
        estimator = self.estimator
        estimate, _ = estimator.estimate(output)
        age = estimate.age.cpu().double().numpy()  # Apple's GPUs have no float64
        deviations = spread(estimate, estimator.method.span)
        spreads = None if deviations is None else deviations.tolist()
        calibration, unknown = estimator.card.calibration, [None] * len(age)
        ends = age_intervals(calibration, age, unknown, unknown) if calibration else None
        has_gender = estimator.gender_head is not None
        genders = map(likelier_gender, gender_logit(estimator, output).tolist() if has_gender else unknown)
        tasks = {task.name: _task_answers(task, output[task.name]) for task in estimator.tasks}
        return (
            Person(
                age=float(age[row]),
                age_interval=None if ends is None else (float(ends[0][row]), float(ends[1][row])),
                age_spread=None if spreads is None else spreads[row],
                gender=gender,
                gender_probability=probability,
                tasks={name: answers[row] for name, answers in tasks.items()},
            )
            for row, (gender, probability) in enumerate(genders)
        )


def _task_answers(task: Task, output: Tensor) -> list[TaskAnswer]:
    if task.kind != "classification":
        return [TaskAnswer(value) for value in task.answer(output).tolist()]
    probability, likeliest = output.float().softmax(1).max(1)
    return [
        TaskAnswer(task.classes[index], share)
        for index, share in zip(likeliest.tolist(), probability.tolist(), strict=True)
    ]
