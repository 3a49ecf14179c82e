"""A batch: uint8 pictures, masks and labels. Normalisation happens on the device."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from mivolo_lite.data.labels import AgeRange


@dataclass(frozen=True)
class Batch:
    """What the loader yields.

    Attributes:
        face, body: (B, 3, S, S) uint8 RGB in channels-last memory, black where absent; None where the model has no
            such input.
        has_face, has_body: (B,) bool, or None likewise.
        age: ages of the batch.
        gender: (B,) int64 class of ``GENDERS``, 0 where unknown.
        gender_known: (B,) bool.
        sample: (B,) int64 number in the index.
        counted: (B,) bool, False for repetitions that only fill up an evaluation batch.
        broken: "key: reason" of every picture that could not be decoded; such a picture is absent.
    """

    face: Tensor | None
    body: Tensor | None
    has_face: Tensor | None
    has_body: Tensor | None
    age: AgeRange
    gender: Tensor
    gender_known: Tensor
    sample: Tensor
    counted: Tensor
    broken: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.sample)

    def pictures(self) -> dict[str, Tensor | None]:
        """The keyword arguments of an estimator's forward pass."""
        return {"face": self.face, "body": self.body, "has_face": self.has_face, "has_body": self.has_body}

    def to(self, device: torch.device | str) -> "Batch":
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Called by the data loader, so that copies to a GPU overlap with its work."""
        return self._map(Tensor.pin_memory)

    def _map(self, function) -> "Batch":
        def over(value):
            if isinstance(value, Tensor):
                return function(value)
            if isinstance(value, AgeRange):
                return AgeRange(function(value.lo), function(value.hi), function(value.known))
            return value

        return Batch(**{field.name: over(getattr(self, field.name)) for field in fields(self)})
