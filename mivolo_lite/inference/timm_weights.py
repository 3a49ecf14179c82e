"""Exports a backbone's plain weights for ``timm.create_model``."""

from pathlib import Path

from torch import nn

from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.files import explain_write_errors, new_path, save_tensors
from mivolo_lite.inference.formats import Precision
from mivolo_lite.models.backbone import create_without_classifier
from mivolo_lite.models.weights import timm_config


def export_backbone(
    checkpoint: Path | str, out: Path | str, which: str | None = None, precision: Precision = "fp32"
) -> str:
    """Write the weights of a model's timm backbone as a safetensors file.

    Args:
        checkpoint: as for ``Estimator.load``.
        out: the file; must not exist.
        which: the backbone of ``face`` or ``body``, for a model with one for each input; None for the face's.
        precision: of the weights.

    Returns:
        Python code that loads it.

    Raises:
        UserError: ``out`` exists or cannot be written, the model does not have the input ``which``, or its backbone is
            not an unchanged model of timm's.
    """
    out = Path(out)
    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: timm knows such files by their ending; name it {out.stem}.safetensors")
    new_path(out)
    estimator = Estimator.load(checkpoint)
    if which is not None and which not in estimator.inputs:
        raise UserError(f"--input {which}: {checkpoint} looks at the {estimator.inputs[0]} alone; leave it out")
    backbone = _backbone(estimator.model, which or "face")
    name = estimator.card.model["name"]
    if backbone is None:
        raise UserError(
            f"{checkpoint}: the model {name} has no backbone that timm has; --format onnx takes every model"
        )
    architecture = timm_config(backbone)["architecture"]
    size = {"img_size": estimator.card.image_size} if timm_config(backbone).get("fixed_input_size") else {}
    plain = create_without_classifier(architecture, **size)
    state = {tensor: value.clone() for tensor, value in backbone.state_dict().items()}
    if plain.state_dict().keys() != state.keys():
        raise UserError(
            f"{checkpoint}: the model {name} uses a part of {architecture} only; --format onnx takes every model"
        )
    if precision == "fp16":
        state = {tensor: value.half() if value.is_floating_point() else value for tensor, value in state.items()}
    with explain_write_errors(out):
        save_tensors(state, out, {"architecture": architecture})
    options = "".join(f", {option}={value}" for option, value in size.items())
    return f'timm.create_model("{architecture}", num_classes=0{options}, checkpoint_path="{out}")'


def _backbone(model: nn.Module, which: str) -> nn.Module | None:
    """The timm model inside a model of this package."""
    for path in ("backbone", f"{which}.tokens.backbone", "levels.backbone", "volo", "swin"):
        try:
            return model.get_submodule(path)
        except AttributeError:
            continue
    return None
