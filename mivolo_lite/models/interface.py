"""What every model looks like to the rest of the package."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from mivolo_lite.errors import UserError, first_line
from mivolo_lite.images.packed import Images
from mivolo_lite.interfaces import interface_error
from mivolo_lite.models.folding import fold_batch_norms
from mivolo_lite.models.head import Head
from mivolo_lite.option_values import check_options

Channels = Sequence[float]
"""A number for each of the three channels."""


class AgeModel(nn.Module):
    """Images in, features out. Heads belong to the age method and the estimator, and are made by ``make_head``.

    A subclass has a nested dataclass ``Config`` with its options and one line in ``MODELS``.

    Attributes:
        required: what a subclass has to define.
        inputs: what it looks at: ("face",), ("body",) or ("face", "body"). Nothing else needs to be decoded.
        num_features: width D of what the heads read, behind a subnet where the model has them.
        grad_checkpointing: whether the backward pass computes activations again instead of keeping them.
        mean, std: normalisation of each of the three channels, of images in [0, 1].
        branches: names of the modules that see one input alone.
        fusion: names of modules that join the inputs within a timm backbone. Their weights begin random, as the heads'.
    """

    branches: ClassVar[Mapping[str, tuple[str, ...]]] = {"face": ("face",), "body": ("body",)}
    fusion: ClassVar[tuple[str, ...]] = ()
    Config: ClassVar[Any]
    required: ClassVar[tuple[str, ...]] = ("forward",)
    inputs: tuple[str, ...]
    num_features: int
    grad_checkpointing = False
    mean: tuple[float, float, float] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, float, float] = IMAGENET_DEFAULT_STD

    def __init__(self, config: Any, image_size: int) -> None:
        super().__init__()
        check_options(config, "model")
        self.config = config
        self.image_size = image_size

    def forward(self, face: Images, body: Images, batch: int) -> Any:
        """Features: (B, D), or whatever the subnets or, without them, the heads of this model accept.

        A model of one input gives those of its m images, and the estimator puts its answers in their rows. A model of
        two gives those of all B samples.

        Args:
            face, body: the images that the batch has, normalised by ``normalisation``; none of what is no input of
                this model.
            batch: B, how many samples it has.
        """
        raise NotImplementedError

    def require_attributes(self) -> None:
        """Raise UserError where a subclass does not say what it looks at, or how wide its features are."""
        inputs, width = getattr(self, "inputs", None), getattr(self, "num_features", None)
        if inputs not in (("face",), ("body",), ("face", "body")):
            raise interface_error(
                f"{type(self).__name__}.inputs is {inputs!r}; give ('face',), ('body',) or ('face', 'body')"
            )
        if not isinstance(width, int):
            raise interface_error(
                f"{type(self).__name__}.num_features is {width!r}; give the width of its features, a whole number"
            )

    def pooled(self, features: Any) -> Tensor:
        """(m, num_features) a vector for each sample, of what the heads read."""
        return features

    def normalisation(self, name: str, mean: Channels, std: Channels) -> tuple[Channels, Channels]:
        """The mean and the standard deviation by which an input's images are to be normalised.

        Args:
            name: of the input.
            mean, std: those of the model, as its card has them.
        """
        return mean, std

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Activation checkpointing (Chen et al., arXiv 1604.06174) of timm's backbones, block by block.

        Raises:
            UserError: a backbone does not have it.
        """
        modules: list[Any] = list(self.modules())
        for module in modules:
            if module is not self and hasattr(module, "set_grad_checkpointing"):
                try:
                    module.set_grad_checkpointing(enable)
                except AssertionError as error:
                    raise UserError(f"train.grad_checkpointing: {type(module).__name__}: {first_line(error)}") from None
        self.grad_checkpointing = enable

    def for_inference(self) -> "AgeModel":
        """A model of the same outputs that only evaluates, as fast as it can: a frozen copy, or this model itself.

        For the device and the precision in which this model is now: neither moved nor autocast nor saved later.
        """
        return fold_batch_norms(self)

    def for_export(self) -> "AgeModel":
        """A model of the same outputs whose operators ONNX runtimes have: a frozen copy, or this model itself."""
        return self

    def make_subnet(self) -> nn.Module:
        """A new module between the features and the heads of one task, or of a few that share it. Usually nothing."""
        return nn.Identity()

    def make_embedding(self) -> nn.Module:
        """A new module that makes of the features a vector (B, num_features) which tells people apart."""
        raise UserError("model: this one has no recognition embedding; single, swinface and multilevel have")

    def make_head(self, outputs: int, bias: bool = True) -> nn.Module:
        """A new module that maps what a subnet gives, or the features themselves, to (B, outputs) in float32."""
        return Head(self.num_features, outputs, bias)
