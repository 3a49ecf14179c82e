"""Laws of the perceptual hash, the comparison and the blur, on synthetic faces."""

import cv2
import numpy as np
import pytest

from mivolo_lite.audit.compare import similarity, thumbnails_alike
from mivolo_lite.audit.hashing import MIRROR, perceptual_hashes, standardised
from mivolo_lite.audit.quality import blur
from mivolo_lite.images.jpeg import decode
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.storage import ShardFiles


@pytest.fixture(scope="module")
def greys(people):
    """Grey faces of synthetic people."""
    index = ShardIndex.load(people / "train")
    reader = ShardFiles(index)
    return [cv2.cvtColor(decode(reader.read("face", number)), cv2.COLOR_RGB2GRAY) for number in range(24)]


@pytest.fixture(scope="module")
def thumbnails(greys):
    return np.stack([cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA) for grey in greys])


def hashes(thumbnails):
    return perceptual_hashes(thumbnails, np.arange(len(thumbnails)))


@pytest.mark.parametrize("count", [24, 720])  # thresholds are zeros, or medians
def test_the_hash_of_a_mirrored_image_is_known_from_the_hash(thumbnails, count):
    rng = np.random.default_rng(0)
    many = np.resize(thumbnails, (count, 32, 32)).astype(np.float32) + rng.normal(0, 12, (count, 32, 32))
    many = many.clip(0, 255).astype(np.uint8)
    both = np.concatenate([many, many[:, :, ::-1]])
    found = hashes(both)
    assert np.array_equal(found[:count] ^ MIRROR, found[count:])
    assert MIRROR.dtype == np.uint64 and 24 <= int(np.bitwise_count(MIRROR)) <= 40


def test_brightness_and_contrast_hardly_change_the_hash_and_another_face_does(thumbnails):
    other_light = (thumbnails * 0.7 + 30).astype(np.uint8)
    found, changed = hashes(thumbnails), hashes(other_light)
    assert np.bitwise_count(found ^ changed).max() <= 6
    apart = np.bitwise_count(found[:, None] ^ found[None])[np.triu_indices(len(found), 1)]
    assert np.median(apart) > 12


def test_rows_choose_thumbnails(thumbnails):
    rows = np.array([7, 3, 11])
    assert np.array_equal(perceptual_hashes(thumbnails, rows), hashes(thumbnails)[rows])
    assert perceptual_hashes(thumbnails, rows[:0]).shape == (0,)


def test_with_medians_every_bit_halves_the_data(thumbnails):
    rng = np.random.default_rng(0)
    many = np.resize(thumbnails, (600, 32, 32)).astype(np.float32) + rng.normal(0, 40, (600, 32, 32))
    bits = np.unpackbits(hashes(many.clip(0, 255).astype(np.uint8)).view(np.uint8)).reshape(600, 64)
    even = np.unpackbits(np.array([~MIRROR]).view(np.uint8)).astype(bool)
    assert (np.abs(bits[:, even].mean(axis=0) - 0.5) < 0.01).all()


def test_standardised_images_multiply_to_their_correlation(thumbnails):
    one, other = standardised(thumbnails[:2])
    assert (one * other).sum() == pytest.approx(
        np.corrcoef(thumbnails[0].ravel(), thumbnails[1].ravel())[0, 1], abs=1e-4
    )
    assert np.isfinite(standardised(np.zeros((1, 32, 32), np.uint8))).all()


def test_thumbnails_are_alike_where_the_images_are_also_mirrored(thumbnails):
    both = np.concatenate([thumbnails, thumbnails[:, :, ::-1]])
    count = len(thumbnails)
    one, other = np.arange(count), np.arange(count) + count
    assert np.concatenate(list(thumbnails_alike(both, one, other, np.ones(count, bool)))).all()
    assert np.concatenate(list(thumbnails_alike(both, one, one, np.zeros(count, bool)))).all()


def view(grey):
    return cv2.resize(grey, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32)


def test_the_same_image_cut_and_lit_otherwise_is_similar_and_another_one_is_not(greys):
    smooth = [cv2.GaussianBlur(grey, (0, 0), 1.0) for grey in greys]  # noise of single pixels does not survive resizing
    for grey, other in zip(smooth[:8], smooth[1:9], strict=True):
        height, width = grey.shape
        cut = grey[height // 20 :, : width - width // 20]
        assert similarity(view(grey), view(grey)) > 0.99
        assert similarity(view(grey), view(cut)) > 0.9
        assert similarity(view(grey), view(grey) * 0.6 + 20) > 0.98
        assert similarity(view(grey), view(other)) < 0.9


def test_images_with_nothing_in_them_are_similar_to_none(greys):
    flat = np.full((64, 64), 90, np.float32)
    assert similarity(flat, flat) < 0.9 and similarity(view(greys[0]), flat) < 0.9


def test_blur_grows_with_blurring_and_does_not_follow_contrast(greys):
    for grey in greys[:6]:
        steps = [blur(grey)] + [blur(cv2.GaussianBlur(grey, (0, 0), sigma)) for sigma in (1.5, 3)]
        assert steps == sorted(steps) and 0 <= steps[0] < steps[-1] <= 1
        assert blur((grey * 0.5 + 60).astype(np.uint8)) == pytest.approx(steps[0], abs=0.03)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    assert blur(noise) < 0.2 and blur(np.full((64, 64), 9, np.uint8)) == 1.0
