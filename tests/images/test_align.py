"""Faces are turned by their landmarks as a least-squares similarity says, and rotated boxes are cut upright."""

import cv2
import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes

from mivolo_lite.images.align import TEMPLATE, align, cut_corners, similarity, warp


def turned(points: np.ndarray, angle: float, scale: float, shift) -> np.ndarray:
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points @ rotation.T * scale + shift


def applied(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


@pytest.mark.parametrize("angle", [0, 0.3, -1.2, 3])
@pytest.mark.parametrize("scale", [0.2, 1, 7])
def test_a_turned_template_comes_back(angle, scale):
    landmarks = turned(TEMPLATE.astype(float), angle, scale, (300, -40))
    np.testing.assert_allclose(applied(similarity(landmarks, 224), landmarks), 2 * TEMPLATE, atol=1e-6)


def test_it_is_the_least_squares_similarity():
    """SciPy's Procrustes rotation of centred points, and the scale that fits best, are the oracle."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        landmarks = turned(
            TEMPLATE + rng.normal(0, 3, (5, 2)), rng.uniform(-1, 1), rng.uniform(0.3, 4), rng.uniform(0, 99, 2)
        )
        matrix = similarity(landmarks, 112)
        source, target = landmarks - landmarks.mean(0), TEMPLATE - TEMPLATE.mean(0)
        rotation, spread = orthogonal_procrustes(source, target)
        np.testing.assert_allclose(matrix[:, :2], rotation.T * spread / np.square(source).sum(), atol=1e-5)
        assert np.linalg.det(matrix[:, :2]) > 0, "no reflection"
        error = np.square(applied(matrix, landmarks) - TEMPLATE).sum()
        for _ in range(10):
            other = matrix + rng.normal(0, 1e-3, (2, 3)) * [[1, 0, 1], [0, 1, 1]]
            other[1] = [-other[0, 1], other[0, 0], other[1, 2]]
            assert np.square(applied(other, landmarks) - TEMPLATE).sum() >= error - 1e-9


@pytest.mark.parametrize("angle", [0, 0.4, -0.9])
@pytest.mark.parametrize("scale", [0.6, 2, 6])
def test_the_face_lies_where_the_template_has_it(angle, scale):
    """Bright spots at the landmarks of a dark photo come to the template's points, also where it is shrunk much."""
    landmarks = turned(TEMPLATE.astype(float), angle, scale, (700, 600))
    photo = np.zeros((1500, 1600, 3), np.uint8)
    for x, y in landmarks:
        cv2.circle(photo, (round(x), round(y)), max(2, round(2.5 * scale)), (255,) * 3, -1)
    face = align(photo, landmarks, 112)
    size = face.shape[0]
    assert face.shape == (size, size, 3) and size == (112 if scale >= 1 else 67)
    for x, y in TEMPLATE * size / 112:
        assert face[round(y), round(x)].min() > 150
    assert (face > 100).mean() < 0.05


def test_a_small_face_is_not_enlarged():
    landmarks = turned(TEMPLATE.astype(float), 0.1, 0.25, (50, 50))
    assert align(np.zeros((200, 200, 3), np.uint8), landmarks, 448).shape == (28, 28, 3)


def test_an_upright_box_is_cut_as_a_slice():
    photo = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    cut = cut_corners(photo, (10, 5, 50, 5, 50, 45, 10, 45), 100)
    np.testing.assert_array_equal(cut, photo[5:45, 10:50])


def test_what_lies_outside_is_black():
    photo = np.full((40, 40, 3), 200, np.uint8)
    cut = cut_corners(photo, (-20, -20, 20, -20, 20, 20, -20, 20), 100)
    assert cut.shape == (40, 40, 3) and not cut[:19, :19].any() and (cut[21:, 21:] == 200).all()


def test_shrinking_averages_instead_of_skipping():
    photo = np.tile(np.array([[0, 255], [255, 0]], np.uint8), (200, 200))[..., None].repeat(3, 2)
    matrix = np.array([[0.125, 0, 0], [0, 0.125, 0]])
    assert np.abs(warp(photo, matrix, 40)[2:-2, 2:-2].astype(int) - 127).max() < 10


@pytest.mark.parametrize("landmarks", [np.zeros((5, 2)), np.full((5, 2), np.nan), np.array([[np.inf, 0]] * 5)])
def test_impossible_landmarks_are_refused(landmarks):
    with pytest.raises(ValueError, match="no face"), np.errstate(invalid="ignore"):
        similarity(landmarks, 112)


@pytest.mark.parametrize("corners", [[0] * 8, [0, 0, 10, 0, 20, 0, 30, 0], [0, 0, 0, 0, 9, 9, 9, 9], [np.nan] * 8])
def test_boxes_without_area_are_refused(corners):
    with pytest.raises(ValueError, match="without an area"):
        cut_corners(np.zeros((40, 40, 3), np.uint8), corners, 100)
