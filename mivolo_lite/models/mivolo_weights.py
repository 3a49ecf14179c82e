"""Initial weights of a MiVOLO from a VOLO or MiVOLO of its variant, with one or two inputs, at any image size."""

from collections.abc import Mapping
from pathlib import Path

import torch.nn.functional as F
from einops import rearrange
from timm.layers import resample_abs_pos_embed_nhwc
from torch import Tensor, nn

from mivolo_lite.models.weights import StateDict, load_exactly, without_prefix

PREFIX = "model.volo."
"""Prefix of the model's parameters in an estimator of this package."""

ONE_STEM = {
    "patch_embed.conv.": ("patch_embed.conv1.", "patch_embed.conv2."),
    "patch_embed.proj.": ("patch_embed.proj1.", "patch_embed.proj2."),
}
"""The parts of a one-input stem, and their names for the face and for the body in two-input models."""

ENHANCER = "patch_embed.map."
HEADS = ("head.", "aux_head.", "fds.")
"""Not part of the model: heads, and state of feature distribution smoothing in published checkpoints."""


def start_from(volo: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Load the weights of ``state`` into this VOLO.

    Position tables and the enhancer's norm are interpolated to the model's resolution. One stem is copied to both;
    the enhancer then keeps its initial weights.

    Raises:
        UserError: other tensors are missing, unexpected or misshapen; lists them.
    """
    expected = volo.state_dict()
    state = backbone_state(state)
    enhancer = {name: value for name, value in expected.items() if name.startswith(ENHANCER)}
    if enhancer and any(name.startswith("patch_embed.conv.") for name in state):
        state = with_two_stems(state) | enhancer
    state = {name: resized(name, value, expected[name]) if name in expected else value for name, value in state.items()}
    load_exactly(volo, state, source)


def backbone_state(state: Mapping[str, Tensor]) -> StateDict:
    """The VOLO's own weights in a file of this package, of MiVOLO or of timm, by their names in timm and MiVOLO."""
    volo = without_prefix(state, PREFIX)
    return volo or {name: value for name, value in state.items() if not name.startswith(HEADS)}


def with_two_stems(state: Mapping[str, Tensor]) -> StateDict:
    """The weights of a one-input model by the names of a two-input one, with the stem for both inputs."""
    result: StateDict = {}
    for name, value in state.items():
        for single, pair in ONE_STEM.items():
            if name.startswith(single):
                result |= {stem + name.removeprefix(single): value for stem in pair}
                break
        else:
            result[name] = value
    return result


def resized(name: str, value: Tensor, like: Tensor) -> Tensor:
    """A table that depends on the image size, interpolated to the shape of ``like``. Other tensors are unchanged."""
    if value.shape == like.shape or value.ndim != like.ndim:
        return value
    if name == "pos_embed":
        return resample_abs_pos_embed_nhwc(value, like.shape[1:3])
    if name.endswith(("height_rel", "width_rel")):  # distances: the two ends mean the same at every size
        table = F.interpolate(rearrange(value, "n d -> 1 d n"), size=len(like), mode="linear", align_corners=True)
        return rearrange(table, "1 d n -> n d")
    if name.startswith(f"{ENHANCER}norm."):
        return F.interpolate(value[None], size=like.shape[1:], mode="bilinear")[0]
    return value
