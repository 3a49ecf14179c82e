"""Reads and writes the format of SwinFace's published checkpoints, by pure functions on state dicts.

A published file is a dictionary with four state dicts: ``state_dict_backbone``, ``state_dict_fam`` (the attention of
eleven subnets), ``state_dict_tss`` (their layers) and ``state_dict_om`` (42 heads), and state of the training. Here
each subnet is one module, age is the method ``regression`` in raw years, and the other outputs are tasks.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mivolo_lite.errors import UserError
from mivolo_lite.models.swinface import PREFIX, SwinFaceModel
from mivolo_lite.models.weights import StateDict, check_state

SIZE = 112
"""Side of the published model's images in pixels."""

STATE_DICTS = BACKBONE, FAM, TSS, OM = tuple(f"state_dict_{name}" for name in ("backbone", "fam", "tss", "om"))

SUBNETS = {
    "gender": ["gender"],
    "age": ["age", "young"],
    "expression": ["expression", "smiling"],
    "face": ["attractive", "blurry", "chubby", "heavy_makeup", "oval_face", "pale_skin"],
    "hair": ["bald", "bangs", "black_hair", "blond_hair", "brown_hair", "gray_hair", "receding_hairline"]
    + ["straight_hair", "wavy_hair", "wearing_hat"],
    "eyes": ["arched_eyebrows", "bags_under_eyes", "bushy_eyebrows", "eyeglasses", "narrow_eyes"],
    "nose": ["big_nose", "pointy_nose"],
    "cheeks": ["high_cheekbones", "rosy_cheeks", "wearing_earrings", "sideburns"],
    "mouth": ["five_o_clock_shadow", "big_lips", "mouth_slightly_open", "mustache", "wearing_lipstick", "no_beard"],
    "chin": ["double_chin", "goatee"],
    "neck": ["wearing_necklace", "wearing_necktie"],
}
"""The tasks of each subnet, in the order of the published heads. Names of attributes are CelebA's."""

EXPRESSIONS = ["surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"]
"""RAF-DB's, in its order."""

EMBEDDING = "recognition"

TASKS = [
    {"name": name, "classes": EXPRESSIONS if name == "expression" else ["no", "yes"], "subnet": subnet}
    for subnet, names in SUBNETS.items()
    for name in names
    if name not in ("age", "gender")
] + [{"name": EMBEDDING, "kind": "embedding"}]
"""Every output in addition to age and gender."""

BUILTIN_HEADS = {"age": "method.head.", "gender": "gender_head."}
"""Prefixes of an estimator's heads of age and gender."""

CENTER = "method.center"
"""The age in years of the output 0, which is part of the bias in published files."""


def prefixes() -> dict[str, tuple[str, str]]:
    """Prefixes of this package, with the state dict and prefix of each in a published file."""
    published = {}
    # patch merging is at the end of a stage in the paper, and at the beginning in timm
    for stage in (1, 2, 3):
        published[f"{PREFIX}layers.{stage}.downsample."] = BACKBONE, f"layers.{stage - 1}.downsample."
    published[PREFIX] = BACKBONE, ""
    published[f"subnets.{EMBEDDING}.norm."] = BACKBONE, "norm."
    published[f"subnets.{EMBEDDING}.layers."] = BACKBONE, "feature."
    for index, subnet in enumerate(SUBNETS):
        published_prefix = f"nets.{index}."
        published[f"subnets.{subnet}.attention.convs."] = FAM, f"{published_prefix}conv.convs."
        published[f"subnets.{subnet}.attention.gate.0."] = FAM, f"{published_prefix}channel_attention.mlp.1."
        published[f"subnets.{subnet}.attention.gate.2."] = FAM, f"{published_prefix}channel_attention.mlp.3."
        published[f"subnets.{subnet}.attention.norm."] = FAM, f"{published_prefix}norm."
        published[f"subnets.{subnet}.layers."] = TSS, f"{published_prefix}feature."
    for index, task in enumerate(name for names in SUBNETS.values() for name in names):
        published[BUILTIN_HEADS.get(task, f"heads.{task}.")] = OM, f"output_fcs.{index}."
    return published


def published_names(state: Mapping[str, Tensor]) -> dict[str, tuple[str, str]]:
    """The state dict and the name in a published file of every tensor of an estimator that it stores."""
    table = prefixes()
    names = {}
    for name in state:
        prefix = next((prefix for prefix in table if name.startswith(prefix)), None)
        if prefix is not None:
            key, published_prefix = table[prefix]
            names[name] = key, published_prefix + name.removeprefix(prefix)
    return names


def to_estimator(
    checkpoint: Mapping, state: Mapping[str, Tensor], model: SwinFaceModel, source: str | Path
) -> StateDict:
    """The weights of an estimator with all ``TASKS``.

    Args:
        checkpoint: the content of a published file.
        state: the estimator's weights, for names and shapes; only the method's other tensors are kept.
        model: the estimator's model.
        source: named in errors.

    Raises:
        UserError: a state dict or a tensor is missing, or a tensor is unexpected or misshapen.
    """
    absent = [key for key in STATE_DICTS if key not in checkpoint]
    if absent:
        raise UserError(f"{source}: not a whole SwinFace: it has no {', '.join(absent)}")
    expected = from_estimator(state, model)
    for key in STATE_DICTS:
        check_state(expected[key], checkpoint[key], f"{source}: {key}")
    names = published_names(state)
    weights = {name: checkpoint[key][published_name] for name, (key, published_name) in names.items()}
    return {**state, **weights, **swapped_gender_head(weights), CENTER: torch.zeros(())}


def from_estimator(state: Mapping[str, Tensor], model: SwinFaceModel) -> dict[str, StateDict]:
    """The four state dicts of an estimator with all ``TASKS`` and the method ``regression`` in raw years."""
    published: dict[str, StateDict] = {key: {} for key in STATE_DICTS}
    bias = f"{BUILTIN_HEADS['age']}bias"
    weights = {**state, **swapped_gender_head(state), bias: state[bias] + state[CENTER]}
    for name, (key, published_name) in published_names(state).items():
        published[key][published_name] = weights[name].clone()
    published[BACKBONE] |= constants(model)
    return published


def swapped_gender_head(state: Mapping[str, Tensor]) -> StateDict:
    """The gender head with swapped classes: female, male in published files; male, female in this package."""
    head = BUILTIN_HEADS["gender"]
    return {name: value.flip(0) for name, value in state.items() if name.startswith(head)}


def constants(model: SwinFaceModel) -> StateDict:
    """Constant or unused tensors of published backbones: window tables and a classifier."""
    swin, tensors = model.swin, {}
    for stage, layer in enumerate(swin.layers):
        for index, block in enumerate(layer.blocks):
            name = f"layers.{stage}.blocks.{index}."
            tensors[f"{name}attn.relative_position_index"] = block.attn.relative_position_index.clone()
            if block.attn_mask is not None:
                tensors[f"{name}attn_mask"] = block.attn_mask.clone()
    return tensors | {"head.weight": torch.zeros(512, swin.num_features), "head.bias": torch.zeros(512)}
