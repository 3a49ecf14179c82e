"""Pairs the faces and bodies of a photo with the largest sum of overlaps (Hungarian algorithm; Kuhn, 1955)."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from mivolo_lite.inference.people import Located
from mivolo_lite.inference.windows import Detection
from mivolo_lite.packing.crops import Box, intersection

_LEAST = 0.5
"""Smallest share of a face inside a body of the same person."""


def pair(faces: Sequence[Detection], bodies: Sequence[Detection]) -> list[Located]:
    """Every face and every body once, paired if they are of one person; people with faces come first."""
    shares = np.array([_fit(face.box, body.box) for face in faces for body in bodies])
    shares = shares.reshape(len(faces), len(bodies))
    pairs = {
        face: body
        for face, body in zip(*linear_sum_assignment(shares, maximize=True), strict=True)
        if shares[face, body] >= _LEAST
    }
    people = [
        Located(face.box, bodies[pairs[number]].box if number in pairs else None, face.score, face.landmarks)
        for number, face in enumerate(faces)
    ]
    rest = [body for number, body in enumerate(bodies) if number not in pairs.values()]
    return people + [Located(None, body.box, body.score) for body in rest]


def _fit(face: Box, body: Box) -> float:
    """The share of a face in a body's upper half, minus a little for a distance from the middle of its top edge."""
    top_half = body[0], body[1], body[2], (body[1] + body[3]) / 2
    area = (face[2] - face[0]) * (face[3] - face[1])
    if area <= 0:
        return 0.0
    across = abs((face[0] + face[2]) - (body[0] + body[2])) / (2 * max(body[2] - body[0], 1))
    down = abs(face[1] - body[1]) / max(body[3] - body[1], 1)
    return intersection(face, top_half) / area - 0.1 * (across + down)
