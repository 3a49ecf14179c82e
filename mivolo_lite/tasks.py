"""The tasks of an estimator in addition to age and gender."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from mivolo_lite.cosface import Centres, cosface
from mivolo_lite.errors import UserError
from mivolo_lite.labels import IDENTITY
from mivolo_lite.models.interface import AgeModel
from mivolo_lite.ranges import float_range

BUILTIN_TASKS = ("age", "gender")
"""Tasks that every estimator has, each with a subnet of its name."""

_TAKEN = ("projection", "teacher", "baseline", "macro", "epsilon")
"""Names of outputs, losses and metrics such as ``baseline_mae``, which a task of that name would replace."""

LOSSES = {"classification": ("", "cross_entropy"), "regression": ("", "l2", "l1"), "embedding": ("", "cosface")}
"""The losses of each kind."""


@dataclass(frozen=True)
class Task:
    """A task in addition to age and gender.

    Attributes:
        name: of its output.
        kind: ``classification`` gives (B, classes) logits, ``regression`` (B, 1), ``embedding`` a vector (B, E) for
            recognition, learnt from the samples' identities.
        classes: the names of the classes, in the order of the logits.
        loss: ``cross_entropy`` for a classification, ``l2`` (default) or ``l1`` for a regression, ``cosface`` for an
            embedding.
        weight: of its loss, relative to the age's loss in its method's unit.
        subnet: name of the subnet, which tasks can share; ``age`` and ``gender`` have their own. By default the task's
            name. An embedding has none.
        margin: of ``cosface``.
        scale: of ``cosface``.
        label_smoothing: of ``cross_entropy``: share of the target that is spread over all classes.
        mirror: change of a number in the mirror image: ``keep``, or ``negate`` if left and right have different signs,
            as for yaw and roll.
    """

    name: str
    kind: Literal["classification", "regression", "embedding"] = "classification"
    classes: list[str] = field(default_factory=list)
    subnet: str = ""
    loss: Literal["", "cross_entropy", "l1", "l2", "cosface"] = ""
    weight: Annotated[float, float_range(0)] = 1.0
    margin: Annotated[float, float_range(0, 100)] = 0.4
    scale: Annotated[float, float_range(0, 1e4, low_open=True)] = 64.0
    label_smoothing: Annotated[float, float_range(0, 1, high_open=True)] = 0.0
    mirror: Literal["keep", "negate"] = "keep"

    def __post_init__(self) -> None:
        for name in (self.name, self.subnet_name):
            if not name.isidentifier() or hasattr(nn.ModuleDict, name):
                raise UserError(f"tasks: {name!r} cannot be the name of a task or a subnet; take another word")
        if self.name in BUILTIN_TASKS:
            raise UserError(f"tasks: {self.name} is a task of every model already, with options of its own")
        if self.name in _TAKEN:
            raise UserError(f"tasks: {self.name} names another output, loss or metric; take another word")
        if (self.kind == "classification") != (len(self.classes) > 1):
            raise UserError(f"tasks: {self.name}: a classification, and nothing else, has classes, at least two")
        if len(set(self.classes)) < len(self.classes):
            raise UserError(f"tasks: {self.name}: a class is given twice")
        if self.name == IDENTITY and self.kind != "embedding":
            raise UserError(f"tasks: {self.name} is whom an embedding tells apart; give it kind: embedding")
        if self.mirror == "negate" and self.kind != "regression":
            raise UserError(f"tasks: {self.name}: mirror negate is of numbers, and so for kind regression")
        if self.kind == "embedding" and self.subnet:
            raise UserError(f"tasks: {self.name}: an embedding shares no subnet")
        if self.loss not in LOSSES[self.kind]:
            losses = " or ".join(filter(None, LOSSES[self.kind])) or "none"
            raise UserError(
                f"tasks: {self.name}: loss {self.loss} is not for kind {self.kind}; for that there is {losses}"
            )
        if not self.weight >= 0:
            raise UserError(f"tasks: {self.name}: weight {self.weight}: give 0 or more")
        if not (self.margin >= 0 and self.scale > 0):
            raise UserError(
                f"tasks: {self.name}: margin {self.margin}: give 0 or more, and scale {self.scale}: above 0"
            )

    @property
    def subnet_name(self) -> str:
        """The name of its subnet."""
        return self.subnet or self.name

    def compute_loss(self, output: Tensor, value: Tensor) -> Tensor:
        """(B,) float32 loss, without reduction.

        Args:
            output: (B, classes) logits, (B, 1), or (B, P) cosines of ``Centres``.
            value: (B,) indexes of the classes, the numbers, or the people's numbers.
        """
        if self.kind == "embedding":
            return cosface(output, value.long(), self.margin, self.scale)
        if self.kind == "classification":
            smoothing = self.label_smoothing
            return F.cross_entropy(output.float(), value.long(), reduction="none", label_smoothing=smoothing)
        error = output.float().squeeze(-1) - value
        return error.abs() if self.loss == "l1" else error.square()

    def answer(self, output: Tensor) -> Tensor:
        """(B,) float32 index of the most probable class, or the number; (B, E) for an embedding."""
        if self.kind == "embedding":
            return output.float()
        return output.argmax(dim=1).float() if self.kind == "classification" else output.float().squeeze(-1)

    def make_head(self, model: AgeModel) -> nn.Module:
        """The head on the features of its subnet."""
        return nn.Identity() if self.kind == "embedding" else model.make_head(max(1, len(self.classes)))


def read_tasks(records: Sequence[dict[str, Any]]) -> list[Task]:
    """The tasks of a card. Raises UserError if they are inconsistent."""
    return check_tasks([Task(**record) for record in records])


def check_tasks(tasks: list[Task]) -> list[Task]:
    """The tasks unchanged. Raises UserError if they are inconsistent."""
    names = [task.name for task in tasks]
    for task in tasks:
        if names.count(task.name) > 1:
            raise UserError(f"tasks: more than one is called {task.name}")
        if task.kind == "embedding" and [other.subnet_name for other in tasks].count(task.name) > 1:
            raise UserError(f"tasks: {task.name} is an embedding, whose subnet no other task can share")
    return tasks


def make_subnets(model: AgeModel, tasks: Sequence[Task]) -> nn.ModuleDict:
    """Every subnet by its name: those of the age, the gender and the tasks."""
    subnets = nn.ModuleDict({name: model.make_subnet() for name in BUILTIN_TASKS})
    for task in tasks:
        if task.subnet_name not in subnets:
            subnets[task.subnet_name] = model.make_embedding() if task.kind == "embedding" else model.make_subnet()
    return subnets


def make_centres(model: AgeModel, tasks: Sequence[Task], people: int) -> nn.ModuleDict:
    """The class centres that embeddings are trained with, by task; none without people."""
    learnt = [task.name for task in tasks if task.kind == "embedding" and people]
    return nn.ModuleDict({name: Centres(people, model.num_features) for name in learnt})


def negated_tasks(tasks: Sequence[Task]) -> tuple[str, ...]:
    """The tasks whose labels change their sign in the mirror image."""
    return tuple(task.name for task in tasks if task.mirror == "negate")


def classes_to_learn(tasks: Sequence[Task]) -> dict[str, Sequence[str] | None]:
    """The classes by task; None for an embedding, whose classes are people."""
    return {task.name: None if task.kind == "embedding" else task.classes for task in tasks}
