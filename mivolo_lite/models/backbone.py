"""Backbones by their timm name."""

import difflib
from pathlib import Path

import timm
from torch import nn

from mivolo_lite.errors import UserError
from mivolo_lite.models.weights import first_line, load_backbone


def make_backbone(
    name: str,
    image_size: int,
    *,
    pretrained: bool = False,
    weights: str | Path | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """A timm model without its classifier, for square pictures of a given size.

    Args:
        name: timm's name, with or without the tag of its weights.
        image_size: side of the pictures in pixels.
        pretrained: ask timm for its weights, which may download them.
        weights: a local file to load instead.
        drop_rate: dropout before the head.
        drop_path_rate: stochastic depth.

    Raises:
        UserError: unknown name, an option that this backbone does not have, no such weights.
    """
    if not timm.is_model(name):
        close = difflib.get_close_matches(name.split(".")[0], timm.list_models(), n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "see timm.list_models()"
        raise UserError(f"model backbone: timm {timm.__version__} has no model {name!r}; {hint}")
    if pretrained and weights:
        raise UserError(f"model backbone {name}: give either pretrained: true or weights: {weights}, not both")
    # Only these have position tables or windows that are tied to the picture's size.
    sized = timm.get_pretrained_cfg(name).fixed_input_size
    size = {"img_size": image_size} if sized else {}
    try:
        backbone = create(name, pretrained=pretrained, drop_rate=drop_rate, drop_path_rate=drop_path_rate, **size)
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


def create(name: str, **options) -> nn.Module:
    """The timm model without its classifier. A rate of 0 is left out for models that do not know it.

    Leaving out every 0 would be simpler, but Swin, for one, has a stochastic depth of 0.1 unless it is told otherwise.
    """
    try:
        return timm.create_model(name, num_classes=0, **options)
    except TypeError as error:
        unknown = [rate for rate in ("drop_rate", "drop_path_rate") if f"'{rate}'" in str(error)]
        if not unknown or any(options[rate] for rate in unknown):
            raise
        return create(name, **{option: value for option, value in options.items() if option not in unknown})
