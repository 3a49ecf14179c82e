"""How fast each parameter learns: layer-wise learning-rate decay, and freezing.

Both are factors of the learning rate, functions of the parameter's name and the epoch. So a run resumes as exactly with
them as without, at any world size and on any engine: a frozen parameter takes part in every step, with a learning rate
of 0. Its gradient counts in the norm that ``optim.clip_norm`` bounds, on every engine alike: DeepSpeed's norm is that
of all parameters. AdamW's decay is a factor of the learning rate as well, so that it stays as it is to the last bit.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from timm.models import group_parameters
from torch import nn

from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.models.interface import AgeModel

Part = Literal["face", "body", "backbone", "stem"]
"""Of a model: a branch of one with two inputs, all of its timm backbones, or their first layers."""


def lr_scales(module: nn.Module, layer_decay: float) -> dict[str, float]:
    """The factor of the learning rate by the parameter's name: layer-wise decay (Bao et al., BEiT, 2022).

    The layers are those that timm's ``group_matcher`` tells apart. What is no part of a backbone, such as the heads
    and what joins two inputs, has the factor 1, the last layer of a backbone ``layer_decay``, the one before its
    square, and so on.
    """
    scales = dict.fromkeys((name for name, _ in module.named_parameters()), 1.0)
    for layers in _backbones(module):
        last = max(layers.values())
        scales |= {name: layer_decay ** (last + 1 - layer) for name, layer in layers.items()}
    return scales


class Freeze:
    """Parts of a model that do not learn in the first epochs.

    Args:
        estimator: the model with its heads.
        parts: which; none for a model that learns as a whole.
        epochs: passes over the data after which they learn as well; None for never.

    Attributes:
        names: of the frozen parameters.

    Raises:
        UserError: the model has no such part.
    """

    def __init__(self, estimator: Estimator, parts: Sequence[Part], epochs: float | None):
        self.epochs = epochs
        self.names = _names_of(estimator, parts)
        self._modules = list(_largest_within(estimator, self.names))

    def is_on(self, epoch: float) -> bool:
        """Whether the parts are frozen after so many passes over the data."""
        return bool(self.names) and (self.epochs is None or epoch < self.epochs)

    def set_eval(self) -> None:
        """Put the parts in evaluation mode: batch norms then use the statistics that came with the weights, and keep
        them."""
        for module in self._modules:
            module.eval()


def _names_of(estimator: Estimator, parts: Sequence[Part]) -> set[str]:
    names = {name for name, _ in estimator.named_parameters()}
    layers = {name: layer for of_backbone in _backbones(estimator) for name, layer in of_backbone.items()}
    by_part = {part: _within(names, modules) for part, modules in estimator.model.branches.items()}
    by_part |= {"backbone": set(layers), "stem": {name for name, layer in layers.items() if not layer}}
    for part in parts:
        if not by_part[part]:
            listed = ", ".join(name for name, parameters in by_part.items() if parameters)
            raise UserError(f"train.freeze: this model has no {part}; it has {listed}")
    return set().union(*(by_part[part] for part in parts))


def _largest_within(module: nn.Module, names: set[str], prefix: str = "") -> Iterator[nn.Module]:
    """The largest modules all of whose parameters are among these."""
    parameters = [prefix + name for name, _ in module.named_parameters()]
    if parameters and names.issuperset(parameters):
        yield module
        return
    for name, child in module.named_children():
        yield from _largest_within(child, names, f"{prefix}{name}.")


def _within(names: Iterable[str], modules: Sequence[str]) -> set[str]:
    return {name for name in names if not set(modules).isdisjoint(name.split("."))}


def _backbones(module: nn.Module) -> Iterator[dict[str, int]]:
    """Of every timm model in a module, the number of each parameter's layer by the whole name."""
    fusion = [name for model in module.modules() if isinstance(model, AgeModel) for name in model.fusion]
    for path, submodule in module.named_modules():
        if hasattr(submodule, "group_matcher"):
            layers = group_parameters(submodule, submodule.group_matcher(coarse=False), reverse=True)
            named = {name for name, _ in submodule.named_parameters()}
            named -= _within(named, fusion)
            yield {f"{path}.{name}" if path else name: layer for name, layer in layers.items() if name in named}
