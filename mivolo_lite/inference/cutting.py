"""Cuts the people of a photo like the model's training images, and notes what cannot be done alike."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mivolo_lite.errors import UserError
from mivolo_lite.inference.detect import current_name
from mivolo_lite.inference.people import Located
from mivolo_lite.packing.crops import CropRules, body_around
from mivolo_lite.packing.sources.cutting import Crops, aligned_jpeg, cut_person
from mivolo_lite.shards.framing import DETECTOR_KEY, FRAMING_KEY, policies_of
from mivolo_lite.shards.rejects import Rejected


class Cutter:
    """Cuts faces and bodies by the crop policy on a model's card.

    Args:
        crop_policy: of the card: the policy itself, or one for each data set by its address.
        inputs: the images that the model uses.
        guess_bodies: give a body box to people with only a face, if the model uses bodies.
        detector: the name of the face detector; None for boxes from elsewhere.

    Attributes:
        notes: sentences on parts of the policy that cannot be followed.
    """

    def __init__(
        self, crop_policy: Mapping[str, Any], inputs: Sequence[str], guess_bodies: bool, detector: str | None
    ) -> None:
        policies = policies_of(crop_policy)
        policy = policies[0] if policies else {}
        self.inputs = tuple(inputs)
        self.guess_bodies = guess_bodies and "body" in inputs
        try:
            self.rules = CropRules.of_policy({**policy, **_framing(policy)})
        except TypeError:
            raise UserError(
                f"crop_policy of the model's card: {policy!r:.200}: are no rules of cutting faces"
            ) from None
        self.notes = _notes(policies, self.guess_bodies, detector)

    def with_body(self, person: Located) -> Located:
        """The same person, with a guessed body if bodies are guessed and there is none."""
        if not self.guess_bodies or person.body is not None or person.face is None:
            return person
        return person._replace(body=body_around(person.face))

    def __call__(self, image: np.ndarray, people: Sequence[Located]) -> list[Crops]:
        """Every person's crops for the model, as JPEGs; without any if none can be cut.

        Args:
            image: (H, W, 3) uint8, the photo.
            people: everybody in it. Others are blanked out of a body, as in training: their faces, and their bodies
                unless these are guessed.
        """
        return [self._cut(image, person, people) for person in people]

    def _cut(self, image: np.ndarray, person: Located, people: Sequence[Located]) -> Crops:
        body = self.with_body(person).body if "body" in self.inputs else None
        if body is None and (person.face is None or "face" not in self.inputs):
            return Crops(None, None, [("", f"no {' and no '.join(self.inputs)}")])
        others = [(other.face, other.body) for other in people if other is not person]
        try:
            crops = cut_person(image, person.face, body, others, self.rules)
            if self.rules.align and person.landmarks is not None and "face" in self.inputs:
                crops = crops._replace(face=aligned_jpeg(image, person.landmarks, self.rules))
        except Rejected as reason:
            return Crops(None, None, [("", str(reason))])
        return crops if "face" in self.inputs else crops._replace(face=None)


def _framing(policy: Mapping[str, Any]) -> Mapping[str, Any]:
    return policy.get(FRAMING_KEY) or {}


def _notes(policies: Sequence[Mapping[str, Any]], guess_bodies: bool, detector: str | None) -> list[str]:
    if not policies:
        return ["the checkpoint does not say how its training images were cut; crops are the detector's boxes"]
    notes, first = [], policies[0]
    framing = _framing(first)
    if framing:
        notes.append(
            f"the training images were not cut out of photos; faces are cut to squares of {framing.get('face_square')} "
            "times the detector's boxes, as those images are framed"
        )
    elif "crop_size" not in first:
        recorded = "; ".join(f"{name}: {value}" for name, value in first.items())
        notes.append(f"the training images were not cut out of photos ({recorded}); crops are the detector's boxes")
    elif isinstance(first.get("face"), str) or first.get("whole") in ("face", "body"):
        recorded = first["face"] if isinstance(first.get("face"), str) else f"whole images are the {first['whole']}"
        notes.append(f"the training images were not cut out of photos ({recorded}); crops are the detector's boxes")
    elif any(CropRules.of_policy(policy) != CropRules.of_policy(first) for policy in policies[1:]):
        notes.append("the model was trained on sets that were cut by different rules; the first set's are taken")
    if first.get("align") and detector is None:
        notes.append("the training faces were aligned by landmarks, which are not known here; these are cut upright")
    if first.get("margin") and "face" in first and not framing:
        notes.append("the training faces were cut by a rule of their data set; crops are the detector's boxes")
    cut_to = current_name(framing.get(DETECTOR_KEY, first.get(DETECTOR_KEY)))
    if cut_to and detector not in (None, cut_to):
        notes.append(f"the training faces were cut to the boxes of {cut_to}; those of {detector} are cut differently")
    if guess_bodies and not first.get("body_from_face"):
        notes.append("the training bodies were not guessed from the face; give boxes or a detector with --persons")
    return notes
