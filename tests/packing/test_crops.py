"""Cutting and blanking, by MiVOLO's rules and without its slice error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mivolo_lite.images.jpeg import decode
from mivolo_lite.packing.crops import CropRules, NoCrop, box_iou, cut_body, cut_face, encode

RULES = CropRules()
PHOTO = np.full((500, 600, 3), 200, np.uint8)


def cut(body, own_face=None, others=(), photo=PHOTO, rules=RULES, other_faces=()):
    return cut_body(photo, body, own_face, other_faces, others, rules)


def has_crop(cut, *arguments):
    try:
        cut(*arguments)
    except NoCrop:
        return False
    return True


def blanked(crop):
    return (crop == 0).all(axis=2)


def test_a_face_box_that_only_shares_a_band_with_the_body_blanks_nothing():
    # MiVOLO's reader blanks 24 % of this crop: the near edge is negative, and a negative slice counts from the end.
    crop = cut((100, 250, 300, 450), own_face=(10, 300, 60, 360))
    assert crop.shape == (200, 200, 3) and not blanked(crop).any()


def test_own_face_and_overlapping_people_are_blanked_as_rectangles():
    crop = cut((100, 100, 300, 400), own_face=(150, 110, 200, 170), others=[(250, 300, 600, 500)])
    expected = np.zeros((300, 200), bool)
    expected[10:70, 50:100] = True
    expected[200:, 150:] = True
    assert np.array_equal(blanked(crop), expected)


def test_somebody_who_hardly_overlaps_is_left_in():
    touching = (299, 399, 550, 500)  # one shared pixel: intersection over union 1.2e-5
    assert not blanked(cut((100, 100, 300, 400), others=[touching])).any()
    assert blanked(cut((100, 100, 300, 400), own_face=touching)).sum() == 1, "the own face is blanked all the same"


@settings(max_examples=100)
@given(st.lists(st.integers(-50, 650), min_size=4, max_size=4))
def test_exactly_the_shared_pixels_are_blanked(corners):
    x0, x1 = sorted(corners[:2])
    y0, y1 = sorted(corners[2:])
    body = (120, 80, 420, 480)
    crop = cut(body, own_face=(x0, y0, x1, y1), rules=CropRules(min_kept=0, blank="all"))
    mask = np.zeros(PHOTO.shape[:2], bool)
    mask[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = True
    assert np.array_equal(blanked(crop), mask[80:480, 120:420])


def test_boxes_are_clipped_to_the_photo():
    assert cut((-50, -20, 150, 180)).shape == (180, 150, 3)
    assert cut_face(PHOTO, (590, 480, 700, 700), RULES).shape == (20, 10, 3)


@pytest.mark.parametrize("box", [(100, 100, 180, 200), (90, 110, 190, 190)])
def test_a_face_is_cut_to_the_square_of_the_rules_whatever_the_shape_of_its_box(box):
    """The geometric mean of 80 and 100 is 89.4, and 1.2 of it 107.3."""
    columns, rows = np.meshgrid(np.arange(250), np.arange(250))
    photo = np.stack([columns, rows, rows], axis=2).astype(np.uint8)
    crop = cut_face(photo, box, CropRules(face_square=1.2, face_shift=0.1))
    height = box[3] - box[1]
    assert abs(len(crop) - 107.3) <= 1 and abs(crop.shape[1] - 107.3) <= 1
    assert abs(crop[..., 0].mean() - 140) <= 1 and abs(crop[..., 1].mean() - (150 + 0.1 * height)) <= 1
    assert np.array_equal(cut_face(photo, box, CropRules()), photo[box[1] : box[3], box[0] : box[2]])


def test_a_square_beyond_the_photo_is_clipped_and_one_outside_is_no_crop():
    rules = CropRules(face_square=2.0, face_shift=1.0)
    assert cut_face(PHOTO, (560, 440, 590, 470), rules).shape[0] < 60
    with pytest.raises(NoCrop, match="outside the photo"):
        cut_face(PHOTO, (10, 494, 16, 500), CropRules(face_square=0.2, face_shift=1.0))
    assert CropRules.of_policy(rules.policy()) == rules and CropRules.of_policy({"crop_size": 448}) == CropRules()


@pytest.mark.parametrize("width, present", [(99, False), (100, True)])
def test_small_bodies_are_absent(width, present):
    assert has_crop(cut, (0, 0, width, 300)) == present


@pytest.mark.parametrize("side, present", [(4, False), (5, True)])
def test_small_faces_are_absent(side, present):
    assert has_crop(cut_face, PHOTO, (0, 0, side, 100), RULES) == present


@pytest.mark.parametrize("blanked_rows, present", [(180, True), (181, False)])
def test_bodies_of_which_little_is_left_are_absent(blanked_rows, present):
    assert has_crop(cut, (0, 0, 200, 300), (0, 0, 200, blanked_rows)) == present


@pytest.mark.parametrize("box", [(50, 50, 50, 300), (300, 300, 50, 50), (700, 10, 900, 400), (-200, 0, -10, 400)])
def test_boxes_without_area_are_absent(box):
    assert not has_crop(cut, box) and not has_crop(cut_face, PHOTO, box, RULES)


@pytest.mark.parametrize("blank", ["large", "all"])
@pytest.mark.parametrize(
    "kind, box, blanked_pixels",
    [
        ("body", (300, 200, 390, 299), 0),
        ("body", (300, 200, 401, 301), 101 * 101),
        ("face", (300, 200, 304, 204), 0),
        ("face", (300, 200, 306, 206), 36),
        ("body", (380, 100, 900, 190), 0),  # 90 px high
        ("body", (380, 440, 500, 900), 0),  # 60 px high within the photo
        ("own face", (300, 200, 304, 204), 0),
    ],
)
def test_boxes_too_small_for_a_crop_are_left_in_as_mivolo_does(kind, box, blanked_pixels, blank):
    """The first five were also blanked so by MiVOLO's own reader, of these boxes."""
    boxes = {"body": {"others": [box]}, "face": {"other_faces": [box]}, "own face": {"own_face": box}}[kind]
    crop = cut((100, 100, 420, 460), rules=CropRules(blank=blank), **boxes)
    x0, y0, x1, y1 = box
    shared = (min(x1, 420) - x0) * (min(y1, 460) - y0)
    assert blanked(crop).sum() == (shared if blank == "all" else blanked_pixels)


@pytest.mark.parametrize(
    "boxes, reason",
    [
        ({"others": [(0, 0, 600, 500)]}, "hidden by boxes of others"),
        ({"other_faces": [(0, 0, 600, 500)]}, "hidden by boxes of others"),
        ({"own_face": (0, 0, 600, 500)}, "hidden by the own face"),
        ({"photo": np.zeros_like(PHOTO)}, "black"),
    ],
)
def test_an_absent_body_has_a_reason(boxes, reason):
    with pytest.raises(NoCrop, match=reason):
        cut((100, 100, 300, 400), **boxes)


def test_cutting_leaves_the_photo_as_it_was():
    photo = PHOTO.copy()
    cut((100, 100, 300, 400), own_face=(150, 110, 200, 170), photo=photo)
    assert np.array_equal(photo, PHOTO)


def test_overlap_is_intersection_over_union():
    assert box_iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert box_iou((0, 0, 10, 10), (10, 0, 20, 10)) == 0
    assert box_iou((3, 3, 3, 3), (3, 3, 3, 3)) == 0


@pytest.mark.parametrize(
    "height, width, expected", [(300, 200, (96, 64)), (96, 40, (96, 40)), (20, 30, (20, 30)), (500, 3, (96, 1))]
)
def test_crops_are_shrunk_to_their_largest_side_and_never_enlarged(height, width, expected):
    photo = decode(encode(np.full((height, width, 3), 90, np.uint8), 96))
    assert photo.shape == (*expected, 3)
    assert np.abs(photo.astype(int) - 90).max() <= 2


def test_equal_crops_are_equal_bytes():
    crop = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    assert encode(crop, 448) == encode(np.asfortranarray(crop), 448)
