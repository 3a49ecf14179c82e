"""Reads and writes the format of MiVOLO's published checkpoints, by pure functions on state dicts.

A published file is a dictionary with ``state_dict`` (or an averaged ``state_dict_ema`` or ``model_ema``), ``min_age``,
``max_age``, ``avg_age``, ``no_gender`` and perhaps ``with_persons_model``. Its heads have the columns male, female and
age, or age alone; years = age * (max_age - min_age) + avg_age. Here gender and age are two heads of an estimator, and
age is the method ``regression`` with MiVOLO's normalisation, whose head has its own unit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from mivolo_lite.errors import UserError
from mivolo_lite.labels import GENDERS, MAX_AGE, MIN_AGE
from mivolo_lite.methods.interface import AgeSpan
from mivolo_lite.methods.regression import head_unit
from mivolo_lite.models.mivolo import MIVOLO, PATCH, MivoloModel
from mivolo_lite.models.mivolo_weights import PREFIX, backbone_state
from mivolo_lite.models.weights import StateDict, check_state, state_dict_in

GENDER_HEAD, AGE_HEAD = "gender_head.", "method.head."
"""Prefixes of an estimator's heads."""

VARIANTS = {(384, 4): "d1", (512, 6): "d2", (512, 8): "d3", (768, 8): "d4", (768, 12): "d5"}
"""VOLO's variants by their width and their number of outlookers."""

OLDEST = 150
"""Largest published max_age. It is 122 in MiVOLO v2; here ages end at 120, without effect on the outputs."""

HEAD_TENSORS = ("head.weight", "head.bias", "aux_head.weight", "aux_head.bias")


@dataclass(frozen=True)
class Published:
    """The content of a published checkpoint.

    Attributes:
        state: its weights by MiVOLO's names, including heads.
        span: the ages it covers.
        center: MiVOLO's ``avg_age``, the age in years of the output 0.
        scale: MiVOLO's ``max_age - min_age``, the years of an output of 1.
    """

    state: StateDict
    span: AgeSpan
    center: float
    scale: float

    @property
    def has_gender(self) -> bool:
        return len(self.state["head.weight"]) > 1

    @property
    def model(self) -> tuple[str, MivoloModel.Config, int]:
        """This package's name of the model, its options, and the side of its images in pixels."""
        return described(self.state)


def from_checkpoint(checkpoint: Mapping, source: str | Path) -> Published:
    """The content of a published file, checked against its model.

    Raises:
        UserError: it has another format, or missing or unexpected tensors, which are listed.
    """
    absent = [key for key in ("min_age", "max_age", "avg_age") if key not in checkpoint]
    if absent:
        raise UserError(f"{source}: not a MiVOLO checkpoint: it has no {', '.join(absent)}")
    try:
        low, high, center = (float(checkpoint[key]) for key in ("min_age", "max_age", "avg_age"))
    except (TypeError, ValueError, RuntimeError):
        raise UserError(f"{source}: its min_age, max_age and avg_age are not numbers") from None
    if not (low.is_integer() and high.is_integer() and MIN_AGE <= low < min(high, MAX_AGE) <= high <= OLDEST):
        raise UserError(
            f"{source}: min_age {low} and max_age {high} are not whole years in order from {MIN_AGE} to {OLDEST}"
        )
    state = {name: value for name, value in state_dict_in(checkpoint).items() if not name.startswith("fds.")}
    outputs = 1 if checkpoint.get("no_gender", False) else 1 + len(GENDERS)
    check_state(expected_state(state, outputs, source), state, source)
    bodies = checkpoint.get("with_persons_model")
    if bodies is not None and bool(bodies) != has_body(state):
        raise UserError(f"{source}: says with_persons_model: {bool(bodies)}, but its weights are of the other kind")
    return Published(state, AgeSpan(int(low), min(int(high), MAX_AGE)), center, high - low)


def to_checkpoint(published: Published) -> dict:
    """The dictionary that MiVOLO's own loader reads, to be written with ``torch.save``."""
    return {
        "state_dict": published.state,
        "min_age": published.span.min_age,
        "max_age": published.span.max_age,
        "avg_age": published.center,
        "no_gender": not published.has_gender,
        "with_persons_model": has_body(published.state),
    }


def to_estimator(published: Published) -> StateDict:
    """The weights of an estimator: ``model.``, ``method.head.`` and optionally ``gender_head.``.

    The center is always the middle of the span: its difference to MiVOLO's ``avg_age`` is added to the age's bias, and
    the weights are multiplied by the ratio of the scale to the span.
    """
    span = published.span
    ratio = published.scale / (span.max_age - span.min_age)
    state = {PREFIX + name: value for name, value in backbone_state(published.state).items()}
    for tensor in HEAD_TENSORS:
        gender, age = published.state[tensor][:-1], published.state[tensor][-1:]
        if published.has_gender:
            state[GENDER_HEAD + tensor] = gender.clone()
        state[AGE_HEAD + tensor] = age * head_unit(span) * ratio
    shift = (published.center - middle(span)) / (span.max_age - span.min_age)
    state[f"{AGE_HEAD}head.bias"] += shift * head_unit(span)
    return state


def from_estimator(state: Mapping[str, Tensor], span: AgeSpan, source: str | Path) -> Published:
    """The published form of an estimator of this package with the method ``regression``.

    Args:
        state: the estimator's weights, of a method with ``normalise: true``. Without ``gender_head.`` the result has no
            gender.
        span: the ages it covers.
        source: named in errors.

    Raises:
        UserError: it is no MiVOLO, or its method has other heads than MiVOLO's.
    """
    absent = [AGE_HEAD + tensor for tensor in HEAD_TENSORS if AGE_HEAD + tensor not in state]
    if absent or len(state[f"{AGE_HEAD}head.weight"]) != 1:
        raise UserError(f"{source}: only a mivolo model with the method regression has MiVOLO's layout")
    published = backbone_state(state)
    for tensor in HEAD_TENSORS:
        gender = [state[GENDER_HEAD + tensor]] if GENDER_HEAD + tensor in state else []
        published[tensor] = torch.cat([*gender, state[AGE_HEAD + tensor] / head_unit(span)])
    published["head.bias"][-1] += state["method.start"]
    check_state(expected_state(published, len(published["head.weight"]), source), published, source)
    return Published(published, span, middle(span), span.max_age - span.min_age)


def middle(span: AgeSpan) -> float:
    """MiVOLO's ``avg_age`` of a span."""
    return (span.min_age + span.max_age) / 2


def has_body(state: Mapping[str, Tensor]) -> bool:
    """Whether weights by MiVOLO's names are of a model of face and body."""
    return "patch_embed.conv1.0.weight" in state


def described(state: Mapping[str, Tensor]) -> tuple[str, MivoloModel.Config, int]:
    """The name, options and image size in this package of a model with these weights by MiVOLO's names."""
    size = 2 * PATCH * state["pos_embed"].shape[1]
    width, outlookers = len(state["norm.weight"]), [name.split(".")[2] for name in state if name[:10] == "network.0."]
    blocks = 1 + max(map(int, outlookers), default=0)
    # The nearest depth, so that the error for a missing block names the block, not an unknown model.
    near = {variant: abs(depth - blocks) for (dim, depth), variant in VARIANTS.items() if dim == width}
    variant = min(near, key=lambda name: near[name], default="?")
    return f"mivolo_{variant}_{size}", MivoloModel.Config(input="both" if has_body(state) else "face"), size


def expected_state(state: Mapping[str, Tensor], outputs: int, source: str | Path) -> StateDict:
    """Names and shapes (on the meta device) of the model of these weights by MiVOLO's names."""
    unsure = [name for name in ("pos_embed", "norm.weight") if name not in state]
    if unsure:
        raise UserError(f"{source}: not MiVOLO's weights; missing: {', '.join(unsure)}")
    name, config, size = described(state)
    if name not in MIVOLO:
        raise UserError(f"{source}: would be {name}, which is not known; there are {', '.join(MIVOLO)}")
    return _meta_state(name, config, size, outputs)


@cache
def _meta_state(name: str, config: MivoloModel.Config, size: int, outputs: int) -> StateDict:
    with torch.device("meta"):
        model = MIVOLO[name](config, size)
        head = model.make_head(outputs)
    return model.volo.state_dict() | head.state_dict()
