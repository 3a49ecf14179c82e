"""How a data set frames its faces, as its crop policy records it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

FRAMING_KEY = "framing"
"""In a ``crop_policy`` of whole images: the square around a detector's box that frames faces as those images do."""

DETECTOR_KEY = "face_boxes"
"""In a ``crop_policy``, or its framing: the detector whose boxes the faces were cut to, or measured by."""

_SQUARE, _SHIFT = 0.1, 0.05
"""Smaller differences count as equal. With a model of UTKFace's chips (1.02, +0.09), squares of 0.88 to 1.02 and shifts
of 0.08 to 0.11 changed the MAE on FG-NET by at most 0.6 years; 1.1 without a shift cost 3 years on FairFace's
sample."""


class Framing(NamedTuple):
    """The square around a face that an image shows.

    Attributes:
        square: the side of the image by the mean side of the detector's box; 0 for the box itself.
        shift: how far down the square lies, as a share of the box's height.
    """

    square: float
    shift: float

    def __str__(self) -> str:
        return f"squares of {self.square:g} times a detector's boxes, {self.shift:+g} down" if self.square else "boxes"

    def is_like(self, other: "Framing") -> bool:
        """Whether both are nearly equal, so that a model trained on one works on the other."""
        if not self.square or not other.square:
            return self.square == other.square
        return abs(self.square - other.square) <= _SQUARE and abs(self.shift - other.shift) <= _SHIFT


def policies_of(crop_policy: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The crop policies in ``crop_policy``: itself, or one for each data set that a model was trained on.

    The policy of a scanned data set may be its framing only, which is a mapping as well.
    """
    is_nested = all(isinstance(value, Mapping) for value in crop_policy.values()) and [*crop_policy] != [FRAMING_KEY]
    return list(crop_policy.values()) if is_nested else [crop_policy]


def is_whole_face(policy: Mapping[str, Any]) -> bool:
    """Whether the faces of a data set were not cropped from photos by the package's rules."""
    return "crop_size" not in policy or isinstance(policy.get("face"), str) or policy.get("whole") == "face"


def framing_of(policy: Mapping[str, Any]) -> Framing | None:
    """The framing of a data set's faces; None if they are aligned or if it is unknown."""
    recorded = policy.get(FRAMING_KEY) if is_whole_face(policy) else policy
    if not isinstance(recorded, Mapping) or policy.get("align"):
        return None
    square, shift = (recorded.get(name, 0.0) for name in ("face_square", "face_shift"))
    return Framing(square, shift) if isinstance(square, int | float) and isinstance(shift, int | float) else None


def is_cut_alike(policy: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two data sets have the same crop policy; framings, which are measured, may differ a little."""
    rules, other_rules = ({name: rule for name, rule in of.items() if name != FRAMING_KEY} for of in (policy, other))
    framing, other_framing = framing_of(policy), framing_of(other)
    return rules == other_rules and (framing is None or other_framing is None or framing.is_like(other_framing))
