"""Faces and bodies of one person come together."""

import pytest

from mivolo_lite.inference.pair import pair
from mivolo_lite.inference.windows import Detection


def boxes(*edges):
    return [Detection(tuple(map(float, box)), 0.9) for box in edges]


def test_a_child_on_an_arm_keeps_its_own_face():
    mother, child = (100, 0, 200, 400), (110, 60, 160, 160)
    mothers_face, childs_face = (130, 10, 170, 60), (120, 65, 150, 95)
    people = pair(boxes(childs_face, mothers_face), boxes(mother, child))
    assert [(one.face, one.body) for one in people] == [(childs_face, child), (mothers_face, mother)]


def test_whom_only_one_box_shows_is_somebody_too():
    people = pair(boxes((0, 0, 20, 20)), boxes((300, 0, 400, 300)))
    assert [(one.face, one.body) for one in people] == [((0, 0, 20, 20), None), (None, (300, 0, 400, 300))]
    assert pair([], []) == [] and len(pair(boxes((0, 0, 9, 9)), [])) == 1 and len(pair([], boxes((0, 0, 9, 9)))) == 1


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_a_row_of_people_is_paired_whatever_the_order(order):
    faces = boxes(*((100 * number + 30, 10, 100 * number + 70, 60) for number in range(3)))
    bodies = boxes(*((100 * number - 20, 0, 100 * number + 120, 300) for number in order))
    for person in pair(faces, bodies):
        assert person.body[0] == person.face[0] - 50


def test_a_face_at_the_feet_of_a_body_is_not_its():
    (face, body) = pair(boxes((40, 250, 80, 300)), boxes((0, 0, 120, 300)))
    assert face.body is None and body.face is None


def test_a_face_without_an_area_is_nobodys():
    face, body = pair(boxes((60, 20, 60, 40)), boxes((0, 0, 120, 300)))
    assert face.body is None and body.face is None
