"""Augmentation: what each switch does, how often, and that uniform numbers alone decide it."""

import numpy as np
import pytest

from mivolo_lite.config import read_run_config
from mivolo_lite.errors import UserError
from mivolo_lite.loading.transforms import Augment, AugmentConfig

OFF = {"flip": 0, "crop_scale": 1, "randaugment_ops": 0, "erase": 0}


def example(side: int = 48) -> np.ndarray:
    """(S, S, 3) uint8, smooth, with every channel its own."""
    steps = np.linspace(30, 220, side)
    rows, columns = np.meshgrid(steps, steps, indexing="ij")
    waves = 120 + 90 * np.sin(rows / 9) * np.cos(columns / 7)
    return np.stack([rows, columns, waves], axis=-1).astype(np.uint8)


def augmented(image: np.ndarray, count: int, seed: int = 0, **options) -> np.ndarray:
    """(count, S, S, 3): the image as that many samples have it, every switch off that is not given."""
    augment = Augment(AugmentConfig(**OFF | options))
    out = np.empty((count, *image.shape), np.uint8)
    for place, numbers in enumerate(augment.numbers(seed, np.arange(count))):
        augment(image, out[place], numbers)
    return out


def test_numbers_are_uniform_and_each_samples_own():
    augment = Augment(AugmentConfig())
    numbers = np.array(augment.numbers(3, np.arange(4000), 7))
    assert numbers.min() >= 0 and numbers.max() < 1
    assert np.abs(numbers.mean(axis=0) - 0.5).max() < 0.03 and np.abs(numbers.std(axis=0) - 12**-0.5).max() < 0.02
    correlations = np.corrcoef(numbers.T) - np.eye(numbers.shape[1])
    assert np.abs(correlations).max() < 0.1
    assert augment.numbers(3, [17], 7)[0] == numbers[17].tolist()


def test_there_are_numbers_enough_for_every_change_at_once():
    """With all numbers near nought every change happens; near one, the longest choices are made."""
    options = dict(crop_scale=0.5, flip=1, randaugment_ops=100, erase=1, rotate=20, photometric=1, occlude=1, degrade=1)
    augment, out = Augment(AugmentConfig(**options)), np.empty((16, 16, 3), np.uint8)
    for value in (0.0, 0.3, 0.49, 0.99999):
        augment(example(), out, [value] * len(augment.numbers(0, 0)[0]))


@pytest.mark.parametrize("side", [1, 16, 97])
def test_any_image_becomes_a_square_and_stays_as_it_is(side):
    options = dict(crop_scale=0.5, rotate=20, photometric=1, occlude=1, degrade=1)
    for shape in ((48, 48), (30, 70), (1, 1), (200, 3)):
        image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
        before, augment = image.copy(), Augment(AugmentConfig(**options))
        out = np.empty((side, side, 3), np.uint8)
        for numbers in augment.numbers(0, np.arange(20)):
            augment(image, out, numbers)
        assert np.array_equal(image, before)


def test_flip_and_crop():
    image = example()
    flipped = augmented(image, 400, flip=0.25)
    mirrored = (flipped == image[:, ::-1]).all(axis=(1, 2, 3))
    assert mirrored.mean() == pytest.approx(0.25, abs=0.07)
    assert (flipped[~mirrored] == image).all()
    # Rows grow evenly from 30 to 220: what is left of that range is the crop's side.
    cropped = augmented(image, 400, crop_scale=0.49)[..., 24, 0].astype(float)
    sides = (cropped.max(axis=1) - cropped.min(axis=1)) / 190
    assert 0.66 < sides.min() < 0.74 and sides.max() > 0.96
    assert cropped[:, 0].min() < 35 and cropped[:, -1].max() > 215


@pytest.mark.parametrize("switch", ["erase", "photometric", "occlude", "degrade"])
def test_a_change_happens_as_often_as_was_asked(switch):
    changed = augmented(example(32), 600, **{switch: 0.3}) != example(32)
    assert changed.any(axis=(1, 2, 3)).mean() == pytest.approx(0.3, abs=0.06)


@pytest.mark.slow
def test_every_operation_of_randaugment_happens_as_often():
    results = augmented(example(24), 1400, randaugment_ops=1)
    _, counts = np.unique(results.reshape(len(results), -1), axis=0, return_counts=True)
    signed = 9  # of 14, in two directions each
    assert len(counts) == 2 * signed + 5 and (counts < 75).sum() == 2 * signed and counts.max() < 130


def test_what_is_erased_is_a_black_rectangle_of_2_to_20_percent():
    black = (augmented(np.full((96, 96, 3), 255, np.uint8), 300, erase=1) == 0).all(axis=-1)
    rows, columns = black.any(axis=2).sum(axis=1), black.any(axis=1).sum(axis=1)
    area = black.mean(axis=(1, 2))
    assert np.array_equal(rows * columns, black.sum(axis=(1, 2)))
    assert 0.018 < area.min() < 0.03 and 0.18 < area.max() < 0.21
    assert 0.25 < (rows / columns).min() < 0.4 and 2.7 < (rows / columns).max() < 3.7


def test_what_is_in_the_way_is_a_block_or_a_band_of_one_colour_or_noisy():
    bands = noisy = 0
    for image in augmented(np.full((60, 60, 3), 7, np.uint8), 200, occlude=1):
        covered = (image != 7).any(axis=-1)
        height, width = covered.any(axis=1).sum(), covered.any(axis=0).sum()
        assert covered.sum() >= 0.99 * height * width
        assert 9 <= height <= 30 and (9 <= width <= 30 or width == 60)
        bands += width == 60
        noisy += len(np.unique(image[covered], axis=0)) > 1
    assert 70 < bands < 130 and 70 < noisy < 130


def test_degradations_are_chosen_alike():
    """On one grey, noise alone is seen; of a fine pattern, all but the weakest blur leave something else."""
    even = augmented(np.full((32, 32, 3), 120, np.uint8), 600, degrade=1)
    assert (even.std(axis=(1, 2, 3)) > 2).mean() == pytest.approx(0.25, abs=0.06)
    pattern = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    assert (augmented(pattern, 100, degrade=1) != pattern).any(axis=(1, 2, 3)).mean() > 0.97


def test_photometric_changes_leave_every_pixel_in_its_place():
    """An image of two colours keeps two, and one in seven is grey."""
    image = np.full((8, 8, 3), (90, 120, 60), np.uint8)
    image[:4] = (140, 100, 130)
    changed = augmented(image, 600, photometric=1)
    assert (changed[:, :4] == changed[:, :1, :1]).all() and (changed[:, 4:] == changed[:, -1:, :1]).all()
    assert (np.ptp(changed, axis=-1) == 0).all(axis=(1, 2)).mean() == pytest.approx(0.15, abs=0.05)
    assert changed[:, 0, 0].min() < 40 and changed[:, 0, 0].max() > 250


def test_rotation_stays_within_its_degrees():
    """Of an image that is bright above and dark below, the edge to the right and to the left of the middle."""
    image = np.zeros((101, 101, 3), np.uint8)
    image[:50] = 255
    edges = [(augmented(image, 100, rotate=20)[:, 20:80, 50 + offset, 0] > 127).sum(axis=1) for offset in (-25, 25)]
    angles = np.degrees(np.arctan2(edges[1].astype(int) - edges[0], 50))
    assert np.max(np.abs(angles)) < 21.5 and max(angles) > 15 and min(angles) < -15


@pytest.mark.parametrize(
    "switch, value", [("photometric", "1.5"), ("degrade", "-1"), ("occlude", "yes"), ("rotate", "-5")]
)
def test_an_impossible_switch_is_one_line(switch, value):
    words = ["--run", "r", "--data.train", "t", "--data.val", "v", f"--data.augment.{switch}", value]
    with pytest.raises(UserError, match=f"command line: .*{value}") as error:
        read_run_config(words)
    assert "\n" not in str(error.value)
