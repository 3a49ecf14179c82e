"""Changes of light, camera and view: what each does to an image, how often, and that what is off draws nothing."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from mivolo_lite.config import read_run_config
from mivolo_lite.errors import UserError
from mivolo_lite.images.photography import Blur, ColourCast, LowResolution, Noise, Occlusion, degradation, photometric
from mivolo_lite.loading.transforms import Augment, AugmentConfig, seeded

OFF = {"flip": 0, "crop_scale": 1, "randaugment_ops": 0, "erase": 0}
CHANGES = {
    "photometric": photometric,
    "degradation": degradation,
    "cast": lambda: ColourCast(0.3),
    "blur": lambda: Blur(0.005, 0.04),
    "noise": lambda: Noise(0.02, 0.2),
    "low resolution": lambda: LowResolution(0.125, 0.6),
    "occlusion": Occlusion,
}


def example(side=48):
    """(S, S, 3) uint8, smooth, with every channel its own."""
    steps = np.linspace(30, 220, side)
    rows, columns = np.meshgrid(steps, steps, indexing="ij")
    waves = 120 + 90 * np.sin(rows / 9) * np.cos(columns / 7)
    return np.stack([rows, columns, waves], axis=-1).astype(np.uint8)


def as_tensor(image):
    return torch.from_numpy(image).permute(2, 0, 1)


def test_what_is_off_draws_nothing_and_the_defaults_are_as_they_were():
    before = v2.Compose([v2.RandomHorizontalFlip(0.5), v2.RandAugment(2, 9), v2.RandomErasing(0.25, scale=(0.02, 0.2))])
    augment = Augment(AugmentConfig())
    for seed in range(20):
        with seeded(seed):
            found, state = augment(example()), torch.get_rng_state()
        with seeded(seed):
            expected = before(as_tensor(example())).permute(1, 2, 0).numpy()
            assert torch.equal(torch.get_rng_state(), state)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("side", [16, 48, 97])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_keeps_size_and_type_and_is_drawn_anew_from_every_seed(name, side):
    image, change = as_tensor(example(side)), CHANGES[name]()
    kept = image.clone()
    found = []
    for seed in (1, 1, 2, 3, 4):
        with seeded(seed):
            found.append(change(image))
    assert all(each.shape == image.shape and each.dtype == torch.uint8 for each in found)
    assert torch.equal(image, kept)
    assert torch.equal(found[0], found[1])
    assert len({each.numpy().tobytes() for each in found[1:]}) >= 3
    assert any(not torch.equal(each, image) for each in found)


def test_blur_and_low_resolution_take_detail_away_and_noise_adds_it():
    image = as_tensor(example())

    def detail(each):
        return float(each.float().diff(dim=-1).diff(dim=-1).abs().mean())

    with seeded(0):
        for weak, strong in (
            (Blur(0.01, 0.01), Blur(0.04, 0.04)),
            (LowResolution(0.5, 0.5), LowResolution(0.15, 0.15)),
        ):
            assert detail(strong(image)) < detail(image)
            change = [(each(image).float() - image.float()).abs().mean() for each in (weak, strong)]
            assert change[0] < change[1]
        deviation = (Noise(0.1, 0.1)(image).float() - image.float()).std()
    assert deviation == pytest.approx(25.5, rel=0.05)


def test_a_cast_multiplies_every_channel_by_a_number_of_its_own():
    image = torch.full((3, 8, 8), 100, dtype=torch.uint8)
    with seeded(0):
        found = torch.stack([ColourCast(0.3)(image) for _ in range(50)])
    assert (found == found[..., :1, :1]).all() and 69 <= found.min() < 80 and 120 < found.max() <= 130


def test_what_is_in_the_way_is_a_rectangle_and_the_rest_stays():
    image = torch.zeros(3, 60, 60, dtype=torch.uint8)
    bands = noisy = 0
    with seeded(0):
        for _ in range(200):
            covered = Occlusion(0.2, 0.5)(image)
            rows, columns = covered.any(0).any(1).nonzero(), covered.any(0).any(0).nonzero()
            height, width = (int(places.max() - places.min()) + 1 for places in (rows, columns))
            assert covered.any(0).sum() == height * width  # of the colours sampled, none is black
            assert 12 <= height <= 30 and (12 <= width <= 30 or width == 60)
            bands += width == 60
            noisy += len(covered.flatten(1).unique(dim=1).T) > 2
    assert 70 < bands < 130 and 70 < noisy < 130


@pytest.mark.parametrize("switch", ["photometric", "occlude", "degrade"])
def test_a_change_happens_as_often_as_was_asked(switch):
    augment = Augment(AugmentConfig(**OFF, **{switch: 0.3}))
    with seeded(0):
        changed = np.mean([not np.array_equal(augment(example(32)), example(32)) for _ in range(500)])
    assert changed == pytest.approx(0.3, abs=0.06)


def test_rotation_stays_within_its_degrees():
    """Of an image that is bright above and dark below, the edge to the right and to the left of the middle."""
    image = np.zeros((101, 101, 3), np.uint8)
    image[:50] = 255
    augment = Augment(AugmentConfig(**OFF, rotate=20))
    angles = []
    for seed in range(100):
        with seeded(seed):
            turned = augment(image)[..., 0]
        edges = [(turned[20:80, 50 + offset] > 127).sum() for offset in (-25, 25)]
        angles.append(np.degrees(np.arctan2(edges[1] - edges[0], 50)))
    assert np.max(np.abs(angles)) < 21.5 and max(angles) > 15 and min(angles) < -15


@pytest.mark.parametrize(
    "switch, value", [("photometric", "1.5"), ("degrade", "-1"), ("occlude", "yes"), ("rotate", "-5")]
)
def test_an_impossible_switch_is_one_line(switch, value):
    words = ["--run", "r", "--data.train", "t", "--data.val", "v", f"--data.augment.{switch}", value]
    with pytest.raises(UserError, match=f"command line: .*{value}") as error:
        read_run_config(words)
    assert "\n" not in str(error.value)
