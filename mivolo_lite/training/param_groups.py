"""Layer-wise learning-rate decay, and freezing.

Parameters that stay frozen have no gradient, so the backward pass ends above them: a step of efficientnet_lite0 at
160 px on a CPU takes 0.57 of the time if its stem and first two stages are frozen.

Parameters that thaw later are frozen by a learning rate of 0. So a run resumes exactly, on any engine, and
DistributedDataParallel knows all gradients from the start. They count in the norm for ``optim.clip_norm``. AdamW's
weight decay is multiplied by the learning rate, so it does not change them.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from timm.models import group_parameters
from torch import nn

from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.models.interface import AgeModel
from mivolo_lite.wording import did_you_mean, first_few


def lr_scales(module: nn.Module, layer_decay: float) -> dict[str, float]:
    """The learning-rate factor of each parameter, by name: layer-wise decay (Bao et al., BEiT, 2022).

    The layers are those of timm's ``group_matcher``. The last layer of a backbone has the factor ``layer_decay``, the
    one before it its square, and so on. Heads and the fusion of two inputs have 1.
    """
    scales = dict.fromkeys((name for name, _ in module.named_parameters()), 1.0)
    for _, layers in _backbones(module):
        last = max(layers.values())
        scales |= {name: layer_decay ** (last + 1 - layer) for name, layer in layers.items()}
    return scales


class Freeze:
    """Parts of a model that do not learn in the first epochs.

    Args:
        estimator: the model with its heads.
        parts: ``backbone`` for all timm backbones, ``stem`` for their first layers, a branch of a model with two
            inputs (``face``, ``body``), or a module of a backbone by timm's name (``blocks.0``).
        epochs: passes over the data after which they learn as well; None for never, so that they need no gradient.

    Attributes:
        names: of the frozen parameters.
        parameters: the number of their values.

    Raises:
        UserError: the model has no such part.
    """

    def __init__(self, estimator: Estimator, parts: Sequence[str], epochs: float | None):
        self.epochs = epochs
        self.names = _names_of(estimator, parts)
        self._modules = list(_largest_within(estimator, self.names))
        frozen = [parameter for name, parameter in estimator.named_parameters() if name in self.names]
        self.parameters = sum(parameter.numel() for parameter in frozen)
        if epochs is None:
            for parameter in frozen:
                parameter.requires_grad_(False)

    def is_on(self, epoch: float) -> bool:
        """Whether the parts are frozen after ``epoch`` passes over the data."""
        return bool(self.names) and (self.epochs is None or epoch < self.epochs)

    def set_eval(self) -> None:
        """Put the parts in evaluation mode, in which batch norms use the statistics of the loaded weights and do not
        update them."""
        for module in self._modules:
            module.eval()


def _names_of(estimator: Estimator, parts: Sequence[str]) -> set[str]:
    """The parameters of these parts.

    Raises:
        UserError: the model has no such part.
    """
    by_part = _parameters_of_parts(estimator)
    for part in parts:
        if part not in by_part:
            hint = did_you_mean(part, by_part, f"it has {first_few(list(by_part), 5) or 'none'}")
            raise UserError(f"train.freeze: this model has no {part!r:.60}{hint}")
    return set().union(*(by_part[part] for part in parts))


def _parameters_of_parts(estimator: Estimator) -> dict[str, set[str]]:
    """All parts for ``Freeze``, with the names of their parameters: branches, backbone, stem, timm's modules."""
    names = {name for name, _ in estimator.named_parameters()}
    by_part = defaultdict(set, {part: _within(names, modules) for part, modules in estimator.model.branches.items()})
    backbones = list(_backbones(estimator))
    for _, layers in backbones:
        by_part["backbone"] |= set(layers)
        by_part["stem"] |= {name for name, layer in layers.items() if not layer}
    by_module: dict[str, set[str]] = defaultdict(set)
    for prefix, layers in backbones:
        for name in layers:
            for module in _modules_around(name.removeprefix(prefix)):
                by_module[module].add(name)
    named = by_part | by_module | by_part  # parts come before timm's modules, and replace those of equal names
    return {part: parameters for part, parameters in named.items() if parameters}


def _modules_around(name: str) -> Iterator[str]:
    """The modules that hold a parameter, outermost first: for ``blocks.0.conv.weight`` blocks, blocks.0 and so on."""
    return accumulate(name.split(".")[:-1], lambda path, module: f"{path}.{module}")


def _largest_within(module: nn.Module, names: set[str], prefix: str = "") -> Iterator[nn.Module]:
    """The largest modules whose parameters are all in ``names``."""
    parameters = [prefix + name for name, _ in module.named_parameters()]
    if parameters and names.issuperset(parameters):
        yield module
        return
    for name, child in module.named_children():
        yield from _largest_within(child, names, f"{prefix}{name}.")


def _within(names: Iterable[str], modules: Sequence[str]) -> set[str]:
    return {name for name in names if not set(modules).isdisjoint(name.split("."))}


def _backbones(module: nn.Module) -> Iterator[tuple[str, dict[str, int]]]:
    """The timm models in a module: the prefix of their parameters' names, and the layer number of each parameter by its
    full name."""
    fusion = [name for model in module.modules() if isinstance(model, AgeModel) for name in model.fusion]
    for path, submodule in module.named_modules():
        if hasattr(submodule, "group_matcher"):
            prefix = f"{path}." if path else ""
            layers = group_parameters(submodule, submodule.group_matcher(coarse=False), reverse=True)
            named = {name for name, _ in submodule.named_parameters()}
            named -= _within(named, fusion)
            yield prefix, {f"{prefix}{name}": layer for name, layer in layers.items() if name in named}
