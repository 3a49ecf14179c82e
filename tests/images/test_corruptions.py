"""Corruptions: each does what it says, more of it at every strength, and the same every time."""

import cv2
import numpy as np
import pytest
import simplejpeg

from mivolo_lite.images.corruptions import CORRUPTIONS, SEVERITIES, corrupt

SIDE, MARGIN = 96, 12
INSIDE = slice(None), slice(MARGIN, SIDE - MARGIN)
SAMPLED = ("brightness", "colour cast", "noise", "occlusion", "rotation")  # where chance decides something

MEANS = {  # of the images at the strengths 0, 2 and 4, as the first version of each made them
    "brightness": (101.7622, 138.9595, 168.9448),
    "contrast": (84.7937, 84.8282, 84.9111),
    "colour cast": (85.0392, 85.4743, 85.3545),
    "grey": (84.8141, 84.8351, 84.8626),
    "blur": (84.8026, 84.8126, 84.8235),
    "noise": (84.8341, 84.9419, 85.5478),
    "JPEG": (84.7758, 84.7505, 84.9780),
    "low resolution": (84.6882, 84.7488, 84.7067),
    "occlusion": (86.1882, 89.5286, 94.2370),
    "rotation": (84.9519, 85.1038, 84.8318),
}


def image(seed: int = 0) -> np.ndarray:
    """Light and shade of all sizes between black margins, as a portrait has."""
    random, whole = np.random.default_rng(seed), np.zeros((SIDE, SIDE, 3), np.float32)
    for cells, height in ((3, 60), (12, 40), (48, 25)):
        part = random.uniform(-1, 1, (cells, cells, 3)).astype(np.float32)
        whole += height * cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    whole = np.clip(whole + 110, 1, 255).astype(np.uint8)
    whole[:, :MARGIN] = whole[:, -MARGIN:] = 0
    return whole


def worse(name: str, severity: int, seed: int = 0, sample: int = 0, part: str = "all") -> np.ndarray:
    return corrupt(image(seed), name, severity, (0, sample), part)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(((one.astype(float) - other) ** 2).mean())


def test_there_are_ten_at_five_strengths():
    assert len(CORRUPTIONS) == 10 and SEVERITIES == 5
    assert all(len(set(one.strengths)) == SEVERITIES and one.meaning for one in CORRUPTIONS.values())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_results_of_different_versions_can_be_compared(name):
    """One grey level of one value in a thousand would be 0.001."""
    means = [worse(name, severity).mean() for severity in (0, 2, 4)]
    assert means == pytest.approx(MEANS[name], abs=0.002)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_strength_changes_the_image_more_than_the_one_below(name):
    for seed in range(4):
        clean = image(seed)
        before = clean.copy()
        far = [distance(worse(name, severity, seed, sample=seed), clean) for severity in range(SEVERITIES)]
        assert far[0] > 0 and (np.diff(far) > 0).all(), far
        assert np.array_equal(clean, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_shape_type_and_black_margins_stay(name):
    for severity in range(SEVERITIES):
        changed = worse(name, severity)
        assert changed.shape == (SIDE, SIDE, 3) and changed.dtype == np.uint8 and changed.flags["C_CONTIGUOUS"]
        assert not changed[:, :MARGIN].any() and not changed[:, -MARGIN:].any()
    black = np.zeros((8, 8, 3), np.uint8)
    assert not corrupt(black, name, 4, (0, 0)).any()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_chance_is_the_samples_own(name):
    assert np.array_equal(worse(name, 2, sample=5), worse(name, 2, sample=5))
    results = {worse(name, 2, sample=sample).tobytes() for sample in range(12)}
    assert (len(results) > 1) == (name in SAMPLED)
    seeds = {corrupt(image(), name, 2, (seed, 0)).tobytes() for seed in range(12)}
    assert (len(seeds) > 1) == (name in SAMPLED)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_image_of_one_pixel_is_no_trouble(name):
    assert corrupt(np.full((1, 1, 3), 90, np.uint8), name, 4, (0, 0)).shape == (1, 1, 3)


def inside(name: str, severity: int, sample: int = 0) -> tuple[np.ndarray, np.ndarray, float]:
    clean = image()[INSIDE].astype(float)
    return clean, worse(name, severity, sample=sample)[INSIDE].astype(float), CORRUPTIONS[name].strengths[severity]


def test_brightness_multiplies_or_divides():
    gains = set()
    for sample in range(12):
        clean, changed, gain = inside("brightness", 1, sample)
        gains.add(gain if changed.mean() > clean.mean() else 1 / gain)
        expected = np.minimum(clean * (gain if changed.mean() > clean.mean() else 1 / gain), 255)
        assert np.abs(changed - expected).max() <= 0.51
    assert len(gains) == 2


def test_contrast_shrinks_the_distance_to_mean_grey():
    clean, changed, kept = inside("contrast", 3)
    grey = (clean @ [0.299, 0.587, 0.114]).mean()
    assert np.abs(changed - (grey + kept * (clean - grey))).max() < 0.6


def test_a_cast_is_warm_or_cold():
    signs = set()
    for sample in range(12):
        clean, changed, shift = inside("colour cast", 0, sample)
        warm = np.sign(changed[..., 0].mean() - clean[..., 0].mean())
        signs.add(warm)
        expected = np.minimum(clean * [1 + warm * shift, 1, 1 - warm * shift], 255)
        assert np.abs(changed - expected).max() < 0.6
    assert signs == {-1, 1}


def test_all_of_grey_is_luma():
    clean, changed, share = inside("grey", 4)
    assert share == 1 and np.abs(changed - (clean @ [0.299, 0.587, 0.114])[..., None]).max() < 0.6


def test_blur_keeps_the_mean_and_takes_the_detail():
    clean, changed, _ = inside("blur", 4)
    assert abs(changed.mean() - clean.mean()) < 1
    assert np.abs(np.diff(changed, axis=0)).mean() < 0.4 * np.abs(np.diff(clean, axis=0)).mean()


def test_noise_has_the_deviation_that_it_says():
    even = np.full((SIDE, SIDE, 3), 128, np.uint8)
    for severity, deviation in enumerate(CORRUPTIONS["noise"].strengths[:4]):
        change = corrupt(even, "noise", severity, (0, 1)).astype(float) - 128
        assert change.std() == pytest.approx(deviation, rel=0.03) and abs(change.mean()) < deviation / 40


def test_jpeg_is_what_the_codec_makes_of_it():
    clean, changed, quality = inside("JPEG", 2)
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(image()[INSIDE]), quality, "RGB", "420")
    assert np.array_equal(changed, simplejpeg.decode_jpeg(data))


def test_low_resolution_has_no_more_to_tell_than_the_small_image():
    clean, changed, times = inside("low resolution", 3)
    assert times == 4
    small = cv2.resize(image()[INSIDE], (SIDE // 4 - MARGIN // 2, SIDE // 4), interpolation=cv2.INTER_AREA)
    assert np.array_equal(changed, cv2.resize(small, (SIDE - 2 * MARGIN, SIDE)))


def test_occlusion_covers_its_share_and_what_the_weaker_ones_cover():
    for sample in range(10):
        covered = None
        for severity, share in enumerate(CORRUPTIONS["occlusion"].strengths):
            clean, changed, _ = inside("occlusion", severity, sample)
            now = (changed != clean).any(axis=2)
            colours = np.unique(changed[now], axis=0)
            assert len(colours) == 1 and now.mean() == pytest.approx(share, abs=0.02)
            assert covered is None or now[covered].all()
            covered = now


def test_rotation_turns_about_the_middle_to_either_side():
    disc = np.full((SIDE + 1, SIDE + 1, 3), 60, np.uint8)
    cv2.circle(disc, (SIDE // 2 + 30, SIDE // 2), 6, (255, 255, 255), -1)
    turns = []
    for sample in range(12):
        y, x = np.argwhere(corrupt(disc, "rotation", 3, (0, sample))[..., 0] > 200).mean(axis=0) - SIDE // 2
        turns.append(round(float(np.degrees(np.arctan2(y, x)))))
        assert np.hypot(x, y) == pytest.approx(30, abs=0.5)
    degrees = round(CORRUPTIONS["rotation"].strengths[3])
    assert set(turns) == {degrees, -degrees}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_only_occlusion_asks_where_the_face_is(name):
    clean, strong = image(), worse(name, 4)
    if name != "occlusion":
        assert np.array_equal(worse(name, 4, part="head"), strong) and np.array_equal(
            worse(name, 4, part="none"), strong
        )
        return
    assert np.array_equal(worse(name, 4, part="none"), clean)
    rows, columns = np.nonzero((worse(name, 4, part="head") != clean).any(axis=2))
    width = SIDE - 2 * MARGIN
    assert rows.max() < SIDE / 4 and MARGIN + width / 3 <= columns.min() and columns.max() < SIDE - MARGIN - width / 3
