"""The layout of SwinFace's published checkpoints, read and written. Pure functions on state dicts.

A published file is a dictionary with four state dicts: ``state_dict_backbone``, ``state_dict_fam`` (the attention of
eleven subnets), ``state_dict_tss`` (their layers) and ``state_dict_om`` (42 heads), and what training left beside them.
Here each subnet is one module, age is the method ``regression`` in raw years, and the other answers are tasks.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mivolo_lite.errors import UserError
from mivolo_lite.models.swinface import OURS, SwinFaceModel
from mivolo_lite.models.weights import StateDict, check_state

SIZE = 112
"""Side of the published model's images in pixels."""

PARTS = BACKBONE, FAM, TSS, OM = tuple(f"state_dict_{part}" for part in ("backbone", "fam", "tss", "om"))

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
"""Every answer in addition to age and gender."""

OWN_HEADS = {"age": "method.head.", "gender": "gender_head."}
"""Where an estimator has the heads that are not tasks'."""

CENTER = "method.center"
"""The age in years of the output 0, which published files have in the bias."""


def prefixes() -> dict[str, tuple[str, str]]:
    """Our prefixes of names, and the part and the prefix of each in a published file."""
    found = {}
    # The paper's stages end with the merging of patches, timm's begin with it.
    for stage in (1, 2, 3):
        found[f"{OURS}layers.{stage}.downsample."] = BACKBONE, f"layers.{stage - 1}.downsample."
    found[OURS] = BACKBONE, ""
    found[f"subnets.{EMBEDDING}.norm."] = BACKBONE, "norm."
    found[f"subnets.{EMBEDDING}.layers."] = BACKBONE, "feature."
    for number, subnet in enumerate(SUBNETS):
        theirs = f"nets.{number}."
        found[f"subnets.{subnet}.attention.convs."] = FAM, f"{theirs}conv.convs."
        found[f"subnets.{subnet}.attention.gate.0."] = FAM, f"{theirs}channel_attention.mlp.1."
        found[f"subnets.{subnet}.attention.gate.2."] = FAM, f"{theirs}channel_attention.mlp.3."
        found[f"subnets.{subnet}.attention.norm."] = FAM, f"{theirs}norm."
        found[f"subnets.{subnet}.layers."] = TSS, f"{theirs}feature."
    for number, task in enumerate(name for names in SUBNETS.values() for name in names):
        found[OWN_HEADS.get(task, f"heads.{task}.")] = OM, f"output_fcs.{number}."
    return found


def published_names(state: Mapping[str, Tensor]) -> dict[str, tuple[str, str]]:
    """The part and the name, in a published file, of every tensor of an estimator that has one there."""
    table = prefixes()
    found = {}
    for name in state:
        ours = next((prefix for prefix in table if name.startswith(prefix)), None)
        if ours is not None:
            part, theirs = table[ours]
            found[name] = part, theirs + name.removeprefix(ours)
    return found


def to_estimator(
    checkpoint: Mapping, state: Mapping[str, Tensor], model: SwinFaceModel, source: str | Path
) -> StateDict:
    """The weights of an estimator with all ``TASKS``.

    Args:
        checkpoint: what a published file holds.
        state: the names and shapes of the estimator's weights; nothing of it is kept but the method's other tensors.
        model: the estimator's.
        source: named in errors.

    Raises:
        UserError: a part is missing, or a tensor is missing, unexpected or misshapen.
    """
    absent = [part for part in PARTS if part not in checkpoint]
    if absent:
        raise UserError(f"{source}: not a whole SwinFace: it has no {', '.join(absent)}")
    expected = from_estimator(state, model)
    for part in PARTS:
        check_state(expected[part], checkpoint[part], f"{source}: {part}")
    names = published_names(state)
    found = {ours: checkpoint[part][theirs] for ours, (part, theirs) in names.items()}
    return {**state, **found, **turned_genders(found), CENTER: torch.zeros(())}


def from_estimator(state: Mapping[str, Tensor], model: SwinFaceModel) -> dict[str, StateDict]:
    """The four state dicts of an estimator that has all ``TASKS`` and the method ``regression`` in raw years."""
    published: dict[str, StateDict] = {part: {} for part in PARTS}
    bias = f"{OWN_HEADS['age']}bias"
    ready = {**state, **turned_genders(state), bias: state[bias] + state[CENTER]}
    for ours, (part, theirs) in published_names(state).items():
        published[part][theirs] = ready[ours].clone()
    published[BACKBONE] |= constants(model)
    return published


def turned_genders(state: Mapping[str, Tensor]) -> StateDict:
    """The gender head with its classes the other way round: published are female, male, ours are male, female."""
    head = OWN_HEADS["gender"]
    return {name: value.flip(0) for name, value in state.items() if name.startswith(head)}


def constants(model: SwinFaceModel) -> StateDict:
    """What published backbones hold beside what is learnt: tables of windows, and a classifier that nothing reads."""
    swin, found = model.swin, {}
    for stage, layer in enumerate(swin.layers):
        for number, block in enumerate(layer.blocks):
            name = f"layers.{stage}.blocks.{number}."
            found[f"{name}attn.relative_position_index"] = block.attn.relative_position_index.clone()
            if block.attn_mask is not None:
                found[f"{name}attn_mask"] = block.attn_mask.clone()
    return found | {"head.weight": torch.zeros(512, swin.num_features), "head.bias": torch.zeros(512)}
