"""A batch of uint8 images and labels. Images are normalised later, on the device."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mivolo_lite.batch_labels import AgeRange, TaskLabel
from mivolo_lite.images.packed import Images
from mivolo_lite.labels import AGE_STD, NO_CODE

INPUTS = ("face", "body")

LEAST_STD = 0.5
"""Years. Smaller standard deviations count as this: people state ages in whole years, so no label is sharper."""


class Mixing(NamedTuple):
    """How to mix the samples of a batch, see ``loading.mixup``.

    Attributes:
        partner: (B,) int64 row of each sample's partner; its own row if it is not mixed.
        share: (B,) float32 weight of its own labels in the loss; the partner's have 1 - share.
        weight: (B,) float32 weight of the partner's pixels within the box.
        box: (B, 4) int64 top, bottom, left and right.
        age: interpolated ages, the target in place of both ages; None if both ages count by their shares.
    """

    partner: Tensor
    share: Tensor
    weight: Tensor
    box: Tensor
    age: AgeRange | None = None


@dataclass(frozen=True)
class Batch:
    """What the loader yields.

    Attributes:
        face, body: the images of those samples that have them; None where the model has no such input.
        age: ages of the batch.
        gender: (B,) int64 class of ``GENDERS``, 0 where unknown.
        gender_known: (B,) bool.
        sample: (B,) int64 number in the index.
        valid: (B,) bool, False for repetitions that only fill up an evaluation batch.
        broken: "key: reason" of every image that could not be decoded; such an image is absent.
        tasks: labels of the tasks in addition to age and gender, by their names.
        mixing: how to mix the samples; None for not at all.
    """

    face: Images | None
    body: Images | None
    age: AgeRange
    gender: Tensor
    gender_known: Tensor
    sample: Tensor
    valid: Tensor
    broken: tuple[str, ...] = ()
    tasks: dict[str, TaskLabel] = field(default_factory=dict)
    mixing: Mixing | None = None

    @classmethod
    def assemble(
        cls,
        images: dict[str, Images],
        labels: dict[str, np.ndarray],
        sample: np.ndarray,
        valid: np.ndarray,
        broken: Sequence[str] = (),
        tasks: Mapping[str, np.ndarray] | None = None,
    ) -> "Batch":
        """A batch of arrays from the columns of an index; its ``tensors`` are what a model takes.

        Args:
            images: of each input, arrays or tensors.
            labels: (B,) columns ``age_lo``, ``age_hi`` (NaN where unknown) and ``gender`` (``NO_CODE`` where unknown);
                and ``age_std`` (NaN where unknown) where the data has it.
            sample, valid, broken: see the attributes.
            tasks: (B,) labels of every task, NaN where unknown.
        """
        # A sample without any image has nothing to learn from.
        seen = np.zeros(len(sample), dtype=bool)
        for packed in images.values():
            seen[np.asarray(packed.rows)] = True
        age_known = ~np.isnan(labels["age_lo"]) & seen
        gender_known = (labels["gender"] != NO_CODE) & seen
        lo, hi = (np.where(age_known, labels[end], 0).astype(np.float32) for end in ("age_lo", "age_hi"))
        return cls(
            face=images.get("face"),
            body=images.get("body"),
            age=AgeRange(lo, hi, age_known, _age_std(labels.get(AGE_STD), age_known)),
            gender=np.where(gender_known, labels["gender"], 0).astype(np.int64),
            gender_known=gender_known,
            sample=sample,
            valid=valid,
            broken=tuple(broken),
            tasks={name: _task_label(column, seen) for name, column in (tasks or {}).items()},
        )

    def __len__(self) -> int:
        return len(self.sample)

    def images(self, shown: Sequence[str] = INPUTS) -> dict[str, Images | int]:
        """The keyword arguments of an estimator's forward pass, without images of inputs outside ``shown``."""
        return {name: images if name in shown else _hidden(images) for name, images in self._inputs()} | {
            "batch": len(self)
        }

    def seen(self, shown: Sequence[str]) -> Tensor:
        """(B,) bool: which samples have an image of any input in ``shown``."""
        present = [images.present(len(self)) for name, images in self._inputs() if name in shown]
        return torch.stack(present).any(dim=0)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The images that its samples may have, of ``face`` and ``body``."""
        return tuple(name for name, _ in self._inputs())

    @property
    def image_size(self) -> int:
        """Side of its images in pixels."""
        return next(images.pixels.shape[-1] for _, images in self._inputs())

    def _inputs(self) -> Iterator[tuple[str, Images]]:
        return ((name, getattr(self, name)) for name in INPUTS if getattr(self, name) is not None)

    def tensors(self) -> "Batch":
        """The batch with tensors in place of arrays, sharing their memory."""
        return self._map(torch.as_tensor)

    def arrays(self) -> "Batch":
        """The batch with arrays in place of tensors, sharing their memory."""
        return self._map(np.asarray)

    def to(self, device: torch.device | str) -> "Batch":
        on_cuda = torch.device(device).type == "cuda"  # elsewhere torch does not wait for a copy before it is read
        return self._map(lambda tensor: tensor.to(device, non_blocking=on_cuda))

    def repeat(self, times: int) -> "Batch":
        """Each sample ``times`` times in a row, without images."""
        return self.labels(np.arange(len(self)).repeat(times))

    def labels(self, rows: Tensor | np.ndarray) -> "Batch":
        """The samples in these rows, (n,) int64, without images."""
        return replace(self, face=None, body=None, mixing=None)._map(lambda tensor: tensor[rows])

    def pin_memory(self) -> "Batch":
        """Pin the tensors on the CPU, so that copies to a GPU overlap with its work."""
        return self._map(lambda tensor: tensor if tensor.is_cuda else tensor.pin_memory())

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Keep the tensors' memory until the work queued on this stream is done."""
        self._map(lambda tensor: tensor.record_stream(stream))

    def with_pixels(self, pixels: Callable[[str, Images], Tensor | None]) -> "Batch":
        """The batch with other pixels: ``pixels(name, images)`` returns those of an input."""
        images: dict[str, Any] = {name: Images(pixels(name, images), images.rows) for name, images in self._inputs()}
        return replace(self, **images)

    def __getstate__(self) -> dict:
        # Each tensor that is sent to another process takes a shared memory file, so small tensors are sent as arrays.
        return vars(self._map(lambda values: np.asarray(values) if values.ndim <= 2 else values))

    def __setstate__(self, state: dict) -> None:
        vars(self).update(vars(Batch(**state).tensors()))

    def _map(self, function: Callable[[Any], Any]) -> "Batch":
        def over(value: Any) -> Any:
            if isinstance(value, Tensor | np.ndarray):
                return function(value)
            if isinstance(value, AgeRange):
                return value.map(function)
            if isinstance(value, Images | Mixing):
                return type(value)(*map(over, value))
            if isinstance(value, TaskLabel):
                return TaskLabel(function(value.value), function(value.known))
            if isinstance(value, dict):
                return {name: over(item) for name, item in value.items()}
            return value

        return Batch(**{field.name: over(getattr(self, field.name)) for field in fields(self)})


def _age_std(column: np.ndarray | None, age_known: np.ndarray) -> np.ndarray | None:
    """(B,) float32: 0 where unknown; at least ``LEAST_STD``, also where all opinions agree."""
    if column is None:
        return None
    is_known = age_known & (column >= 0)  # False for NaN
    return np.where(is_known, np.maximum(column, LEAST_STD), 0).astype(np.float32)


def _hidden(images: Images) -> Images:
    return Images(images.pixels[:0], images.rows[:0])


def _task_label(column: np.ndarray, seen: np.ndarray) -> TaskLabel:
    known = ~np.isnan(column) & seen
    return TaskLabel(np.where(known, column, 0).astype(np.float32), known)
