"""An ensemble of models.

Each head of the ensemble is the mean of its members' heads, so methods, tasks, evaluation and export use it like a
single model.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mivolo_lite.errors import UserError
from mivolo_lite.images.packed import Images
from mivolo_lite.models.interface import AgeModel, Channels
from mivolo_lite.models.registry import MODELS
from mivolo_lite.option_values import build


class Members(nn.Module):
    """One module for each member, each with its own member's features.

    Args:
        members: in the order of the models.
        is_head: whether to average their outputs.
    """

    def __init__(self, members: Sequence[nn.Module], is_head: bool):
        super().__init__()
        self.members, self.is_head = nn.ModuleList(members), is_head

    def forward(self, features: Sequence[Any]) -> Any:
        """The mean (B, outputs) of the heads, or the list of the members' outputs."""
        outputs = [member(member_features) for member, member_features in zip(self.members, features, strict=True)]
        return torch.stack(outputs).mean(dim=0) if self.is_head else outputs


class EnsembleModel(AgeModel):
    """The features of all members, whose heads' outputs are averaged."""

    @dataclass(frozen=True)
    class Config:
        """Options.

        Attributes:
            members: name and options of each model.
        """

        members: list[dict[str, Any]] = field(default_factory=list)

    def __init__(self, config: Config, image_size: int):
        super().__init__(config, image_size)
        if not config.members:
            raise UserError("model.members: give two models or more")
        self.members = nn.ModuleList(
            build(MODELS, options, "model.members", lambda cls, options: cls(options, image_size))
            for options in config.members
        )
        first = self._members[0]
        self.inputs, self.mean, self.std = first.inputs, first.mean, first.std
        self.num_features = sum(member.num_features for member in self._members)

    @property
    def _members(self) -> list[AgeModel]:
        return list(self.members)  # type: ignore[arg-type]

    def forward(self, face: Images, body: Images, batch: int) -> list[Any]:
        """Each member's features."""
        return [member(face, body, batch) for member in self._members]

    def pooled(self, features: Sequence[Any]) -> Tensor:
        """(m, num_features) pooled features of all members, concatenated."""
        pairs = zip(self._members, features, strict=True)
        return torch.cat([member.pooled(member_features) for member, member_features in pairs], 1)

    def normalisation(self, name: str, mean: Channels, std: Channels) -> tuple[Channels, Channels]:
        return self._members[0].normalisation(name, mean, std)

    def for_inference(self) -> "EnsembleModel":
        return self._of([member.for_inference() for member in self._members])

    def for_export(self) -> "EnsembleModel":
        return self._of([member.for_export() for member in self._members])

    def make_subnet(self) -> nn.Module:
        return Members([member.make_subnet() for member in self._members], is_head=False)

    def make_head(self, outputs: int, bias: bool = True) -> nn.Module:
        return Members([member.make_head(outputs, bias) for member in self._members], is_head=True)

    def _of(self, members: Sequence[AgeModel]) -> "EnsembleModel":
        """A copy with other members."""
        ensemble = copy(self)
        ensemble._modules = {"members": nn.ModuleList(members)}
        return ensemble
