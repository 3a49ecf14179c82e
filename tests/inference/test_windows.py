"""Faces of all sizes are found once, wherever the windows' edges lie."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mivolo_lite.inference.detect import FaceDetector
from mivolo_lite.inference.flags import SAFE_SIDE
from mivolo_lite.inference.people import Person
from mivolo_lite.inference.rows import row_of
from mivolo_lite.inference.windows import Detection, merge, to_photo, windows
from tests.inference.scenes import RedSquares, photo


@pytest.mark.slow
@given(st.integers(1, 1000), st.integers(1, 1000), st.integers(20, 300))
def test_windows_are_small_enough_and_their_pixels_cover_the_photo(width, height, side):
    image = np.broadcast_to(np.uint8(0), (height, width, 3))
    overlap = side // 3
    covered: dict[float, np.ndarray] = {}
    for window in windows(np.ascontiguousarray(image[:, :, :]), side, 2 * side, side, overlap):
        assert max(window.pixels.shape[:2]) <= side
        shape = tuple(max(1, round(edge * window.scale)) for edge in (height, width))
        seen = covered.setdefault(window.scale, np.zeros(shape, bool))
        seen[window.top : window.top + window.pixels.shape[0], window.left : window.left + window.pixels.shape[1]] = 1
    assert all(seen.all() for seen in covered.values())
    assert len(covered) == (1 if max(width, height) <= side else 2)


@pytest.mark.parametrize("offset", range(0, 400, 37))
def test_small_and_large_faces_are_found_once_each_wherever_they_lie(offset):
    faces = [(offset, 30, 75), (offset + 200, 30, 150), (offset + 450, 500, 300), (1500, offset, 75)]
    red = RedSquares()
    red.side = 500
    found = FaceDetector(red)(photo(*faces, width=1920, height=1080))
    assert len(found) == len(faces)
    for left, top, side in faces:
        box = (left, top, left + side, top + side)
        assert min(max(abs(a - b) for a, b in zip(box, one.box, strict=True)) for one in found) < 4


@pytest.mark.parametrize("width", [2000, 12000])
def test_a_face_that_is_large_enough_to_trust_is_found_in_a_photo_of_any_size(width):
    class Coarse(RedSquares):
        side = 960

        def __call__(self, image):
            return [found for found in super().__call__(image) if found.box[2] - found.box[0] >= 9]

    faces = [(width - 500, 40, SAFE_SIDE + 2), (300, 20, 150)]
    assert len(FaceDetector(Coarse())(photo(*faces, width=width, height=240))) == 2


def test_a_tiny_image_is_enlarged_and_its_boxes_are_in_its_own_pixels():
    (face,) = FaceDetector(RedSquares())(photo((8, 8, 12), width=40, height=30))
    assert face.box == pytest.approx((8, 8, 20, 20), abs=1)


def test_a_face_in_a_large_photo_has_the_box_that_tables_hold():
    found = FaceDetector(RedSquares())(photo((101, 30, 75), (703, 501, 300), width=1931, height=1087))
    assert len(found) == 2
    for face in found:
        assert row_of(Person(face.box), "a.jpg")["face"] == [*face.box]


def test_a_box_that_an_inner_edge_cuts_is_left_to_the_next_window():
    (first, *_) = windows(np.zeros((100, 300, 3), np.uint8), 100, 300, 200, 50)
    window = first._replace(inner=(False, False, True, False), pixels=np.zeros((100, 200, 3), np.uint8), scale=1.0)
    inside, cut, at_the_photos_edge = (10, 10, 60, 60), (150, 10, 199.5, 60), (0, 0, 40, 40)
    kept = to_photo(window, [Detection(box, 0.9) for box in (inside, cut, at_the_photos_edge)])
    assert [one.box for one in kept] == [inside, at_the_photos_edge]


def test_the_surest_of_overlapping_boxes_is_kept():
    face, again, half, other = (0, 0, 100, 100), (5, 5, 105, 105), (0, 0, 100, 30), (200, 0, 300, 100)
    found = [Detection(box, score) for box, score in ((again, 0.8), (face, 0.9), (half, 0.85), (other, 0.7))]
    assert [one.box for one in merge(found)] == [face, other]
