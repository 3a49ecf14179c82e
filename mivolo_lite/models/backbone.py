"""Backbones by their timm name."""

from pathlib import Path
from typing import Any, cast

import timm
import torch
from einops import rearrange
from torch import Tensor, nn

from mivolo_lite.errors import UserError, first_line
from mivolo_lite.models.backbone_source import architecture_of, is_source, read_source
from mivolo_lite.models.weights import load_backbone, timm_config
from mivolo_lite.wording import did_you_mean


def make_backbone(
    name: str,
    image_size: int,
    *,
    pretrained: bool = False,
    weights: str | Path | None = None,
    **options: Any,
) -> nn.Module:
    """A timm model without its classifier, for square images of a given size.

    Args:
        name: timm's name, with or without the tag of its weights, ``hf-hub:user/name`` or ``local-dir:FOLDER``.
        image_size: side of the images in pixels.
        pretrained: ask timm, the hub or the folder for its weights, which may download them.
        weights: a local file to load instead.
        options: timm's own, such as ``drop_rate``, ``drop_path_rate`` and ``global_pool``.

    Raises:
        UserError: unknown name, an option or an image size that this backbone does not take, no such weights.
    """
    require_known(name)
    require_one_source(pretrained, weights)
    if is_source(name):
        source = read_source(name)
        weights, pretrained, name = source.weights if pretrained else weights, False, source.architecture
        options["pretrained_cfg_overlay"] = source.normalisation
    # only these have position tables or windows for a fixed image size
    pretrained_config = timm.get_pretrained_cfg(name)
    if pretrained_config is not None and pretrained_config.fixed_input_size:
        options["img_size"] = image_size
    try:
        backbone = create_without_classifier(name, pretrained=pretrained, **options)
    except TypeError as error:  # an option that this architecture does not know
        raise UserError(f"model backbone {name}: {first_line(error)}") from error
    except Exception as error:
        if not pretrained:
            raise UserError(f"model backbone {name} at {image_size} pixels: {first_line(error)}") from error
        raise UserError(
            f"model backbone {name}: timm could not fetch its weights ({first_line(error)}); "
            "give a local file as weights, or pretrained: false"
        ) from error
    if weights:
        load_backbone(backbone, weights)
    return backbone


def require_known(name: str, option: str = "model backbone") -> None:
    """Raise UserError unless timm has a model of this name, or the architecture of its source."""
    name = architecture_of(name)
    if not timm.is_model(name):
        hint = did_you_mean(name.split(".")[0], timm.list_models(), "see timm.list_models()", most=3)
        raise UserError(f"{option}: timm {timm.__version__} has no model {name!r:.60}{hint}")


def require_one_source(pretrained: bool, weights: str | Path | None) -> None:
    """Raise UserError if a model would start from two sources of weights."""
    if pretrained and weights:
        raise UserError(f"model: give either pretrained: true or weights: {weights}, not both")


def _require_usual_normalisation(name: str, mean: Any, std: Any) -> None:
    """Raise UserError if the normalisation is not the architecture's: a card cannot store that of a second backbone."""
    usual = timm.get_pretrained_cfg(architecture_of(name))
    if usual is not None and (tuple(usual.mean), tuple(usual.std)) != (tuple(mean), tuple(std)):
        raise UserError(
            f"model backbone {name}: is normalised otherwise than timm's; only single and multilevel keep that"
        )


def dry_run(backbone: nn.Module, image_size: int) -> Tensor:
    """The output for one black image. Raises UserError if the backbone does not take this size."""
    name, training = timm_config(backbone)["architecture"], backbone.training
    try:
        with torch.no_grad():
            return backbone.eval()(torch.zeros(1, 3, image_size, image_size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(
            f"model backbone {name} does not take images of {image_size} pixels: {first_line(error)}"
        ) from error
    finally:
        backbone.train(training)


class Tokens(nn.Module):
    """A timm backbone without pooling, its last map or its tokens as (B, N, D).

    Attributes:
        num_features: D.
        mean, std: the normalisation that it expects.
    """

    num_features: int

    def __init__(self, name: str, image_size: int, **options: Any) -> None:
        super().__init__()
        self.backbone = make_backbone(name, image_size, global_pool="", **options)
        self.num_features = cast(int, self.backbone.head_hidden_size)
        self.mean, self.std = (timm_config(self.backbone)[key] for key in ("mean", "std"))
        if is_source(name):
            _require_usual_normalisation(name, self.mean, self.std)
        # timm's flag of models, like Swin, whose maps are (B, H, W, D) and not (B, D, H, W).
        self.channels_last = getattr(self.backbone, "output_fmt", "NCHW") == "NHWC"
        output = dry_run(self.backbone, image_size)
        if output.ndim not in (3, 4) or self.flat(output).shape[-1] != self.num_features:
            raise UserError(f"model backbone {name}: gives neither a map nor tokens; take another")

    def forward(self, image: Tensor) -> Tensor:
        """(B, N, D) of normalised images (B, 3, S, S)."""
        return self.flat(self.backbone(image))

    def flat(self, features: Tensor) -> Tensor:
        """(B, N, D) of tokens, or of a map (B, D, H, W) or (B, H, W, D)."""
        if features.ndim == 3:
            return features
        return rearrange(features, "b h w d -> b (h w) d" if self.channels_last else "b d h w -> b (h w) d")


def create_without_classifier(name: str, **options: Any) -> nn.Module:
    """A timm model without its classifier. A rate of 0 is left out only for models without that option: Swin, for
    example, has a stochastic depth of 0.1 by default.
    """
    try:
        return timm.create_model(name, num_classes=0, **options)
    except TypeError as error:
        unsupported = [rate for rate in ("drop_rate", "drop_path_rate") if f"'{rate}'" in str(error)]
        if not unsupported or any(options[rate] for rate in unsupported):
            raise
        return create_without_classifier(
            name, **{option: value for option, value in options.items() if option not in unsupported}
        )
