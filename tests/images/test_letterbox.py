"""Letterboxing: MiVOLO's rounding and padding, pinned."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mivolo_lite.images.letterbox import fitted, letterbox

WHITE = 255


def padding(square: np.ndarray) -> tuple[int, int, int, int]:
    """Black rows and columns around the white image: left, right, top, bottom."""
    rows, columns = np.flatnonzero(square.any(axis=(1, 2))), np.flatnonzero(square.any(axis=(0, 2)))
    return columns[0], square.shape[1] - 1 - columns[-1], rows[0], square.shape[0] - 1 - rows[-1]


@pytest.mark.parametrize(
    "height, width, expected",
    [
        (100, 50, (56, 56, 0, 0)),
        (50, 100, (0, 0, 56, 56)),
        (200, 101, (55, 56, 0, 0)),
        (10, 300, (0, 0, 108, 109)),
        (448, 448, (0, 0, 0, 0)),
    ],
)
def test_padding_is_mivolos(height, width, expected):
    square = letterbox(np.full((height, width, 3), WHITE, np.uint8), 224)
    assert square.shape == (224, 224, 3)
    assert padding(square) == expected


def test_exact_size_is_returned_untouched():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert letterbox(image, 64) is image


def test_a_image_that_fits_is_only_padded():
    image = np.random.default_rng(0).integers(1, 256, (64, 31, 3), dtype=np.uint8)
    assert np.array_equal(letterbox(image, 64)[:, 16:47], image)


@settings(max_examples=50)
@given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 96))
def test_a_flat_image_stays_flat_and_touches_two_edges(height, width, size):
    square = letterbox(np.full((height, width, 3), WHITE, np.uint8), size)
    new_width, new_height = fitted(width, height, size)
    assert max(new_width, new_height) == size
    assert set(np.unique(square)) <= {0, WHITE}
    assert square.astype(bool).sum() == 3 * new_width * new_height
    left, right, top, bottom = padding(square)
    assert right - left in (0, 1) and bottom - top in (0, 1)


@settings(max_examples=50)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 64))
def test_a_place_that_was_used_before_holds_nothing_but_the_image(height, width, size):
    image = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    places = np.full((3, size, size, 3), WHITE, np.uint8)
    letterbox(image, size, places[1])
    assert np.array_equal(places[1], letterbox(image, size)) and (places[[0, 2]] == WHITE).all()
