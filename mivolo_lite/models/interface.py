"""The interface of a model."""

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
"""One number for each of the three channels."""


class AgeModel(nn.Module):
    """Images in, features out. Heads belong to the age method and the estimator, and are made by ``make_head``.

    A subclass has a nested dataclass ``Config`` with its options and one line in ``MODELS``.

    Attributes:
        required: attributes and methods that a subclass must define.
        inputs: the images that it takes: ("face",), ("body",) or ("face", "body").
        num_features: width D of the heads' input, after a subnet if the model has subnets.
        grad_checkpointing: whether the backward pass recomputes activations instead of storing them.
        mean, std: normalisation of each of the three channels, of images in [0, 1].
        branches: names of the modules that see only one input.
        fusion: names of modules that join the inputs within a timm backbone. They are initialised randomly, like the
            heads.
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
        """Features: (B, D), or another input of this model's subnets or heads.

        A model of one input returns those of its m images, and the estimator puts the outputs in their rows. A model of
        two returns those of all B samples.

        Args:
            face, body: the batch's images, normalised by ``normalisation``; without images for what is no input of this
                model.
            batch: B, the number of samples.
        """
        raise NotImplementedError

    def require_attributes(self) -> None:
        """Raise UserError if a subclass does not set ``inputs`` or ``num_features``."""
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
        """(m, num_features) one vector for each sample, pooled from the features."""
        return features

    def normalisation(self, name: str, mean: Channels, std: Channels) -> tuple[Channels, Channels]:
        """The mean and the standard deviation of an input's normalisation.

        Args:
            name: of the input.
            mean, std: those of the model's card.
        """
        return mean, std

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Activation checkpointing (Chen et al., arXiv 1604.06174) of timm's backbones, block by block.

        Raises:
            UserError: a backbone does not support it.
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
        """A faster model with the same outputs, for inference only: a frozen copy, or this model itself.

        It is for the current device and precision: do not move it, use autocast or save it.
        """
        return fold_batch_norms(self)

    def for_export(self) -> "AgeModel":
        """A model with the same outputs by operators of ONNX runtimes: a frozen copy, or this model itself."""
        return self

    def make_subnet(self) -> nn.Module:
        """A new module between the features and the heads of one or several tasks. By default the identity."""
        return nn.Identity()

    def make_embedding(self) -> nn.Module:
        """A new module from the features to an embedding (B, num_features) for recognition."""
        raise UserError("model: this one has no recognition embedding; single, swinface and multilevel have")

    def make_head(self, outputs: int, bias: bool = True) -> nn.Module:
        """A new module from the output of a subnet, or the features, to (B, outputs) in float32."""
        return Head(self.num_features, outputs, bias)
