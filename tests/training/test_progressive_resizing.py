"""Progressive resizing: the sides that a training sees, what a step learns from them, and a real run that resumes."""

import json
from dataclasses import replace

import pytest
import torch

from mivolo_lite.card import Card
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.images.packed import Images
from mivolo_lite.loading.mixup import mixed
from mivolo_lite.training.progressive_resizing import ProgressiveResizingConfig, require_resizable
from tests.training.resuming import require_same_after_resume
from tests.training.test_distillation import estimator
from tests.training.test_mixup import mixed_batch, stepped
from tests.training.test_step import batch_of


@pytest.mark.parametrize("delay, finetune", [(0.5, 0.2), (0, 0), (0, 1), (1, 0), (0.8, 0.2)])
@pytest.mark.parametrize("image_size", [224, 100])
def test_images_begin_small_grow_and_end_on_full_size(image_size, delay, finetune):
    config = ProgressiveResizingConfig(0.5, delay, finetune, size_increment=8)
    sizes = [config.size(step / 1000, image_size) for step in range(1001)]
    first = image_size if finetune == 1 else round(image_size / 16) * 8
    assert sizes == sorted(sizes) and sizes[0] == first and sizes[-1] == image_size
    assert set(sizes[: round(delay * 1000)]) <= {first}
    assert set(sizes[round((1 - finetune) * 1000) :]) == {image_size}
    assert all(size % 8 == 0 for size in sizes if size < image_size)


def test_sides_are_never_zero_and_full_size_is_the_default():
    assert ProgressiveResizingConfig(0.01, size_increment=32).size(0, 64) == 32
    assert ProgressiveResizingConfig(0.01, size_increment=1000).size(0, 64) == 64
    assert ProgressiveResizingConfig().size(0, 64) == 64


def test_resized_images_keep_their_colours_and_their_memory_format():
    pixels = torch.randint(0, 256, (1, 3, 1, 1), dtype=torch.uint8).expand(2, 3, 64, 64)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    images = Images.of(pixels).resized(24)
    assert torch.equal(images.pixels, pixels[..., :24, :24])
    assert images.pixels.is_contiguous(memory_format=torch.channels_last)
    none = Images.none_of(64).resized(24)
    assert none.pixels.shape == (0, 3, 24, 24)


def test_a_step_learns_from_the_resized_images():
    student, batch = estimator(1, "dldl"), batch_of(8, side=64)
    at_full_size, _ = stepped(student, batch)
    small, _ = stepped(student, batch, image_size=32)
    assert torch.equal(small, stepped(student, batch.resized(32))[0])
    assert not torch.allclose(small, at_full_size)


def test_images_are_mixed_before_they_are_resized():
    student, batch = estimator(1, "dldl"), mixed_batch()
    of_labels = batch.mixing._replace(weight=torch.zeros(len(batch)))
    by_hand = replace(mixed(batch)[0].resized(32), mixing=of_labels)
    assert torch.equal(stepped(student, batch, image_size=32)[0], stepped(student, by_hand)[0])


def test_a_model_of_one_size_is_one_line():
    model = {"name": "single", "backbone": "vit_tiny_patch16_224"}
    vit = Estimator(Card(model, {"name": "dldl"}, {"min_age": 0, "max_age": 100}, 64)).train()
    require_resizable(vit, 64)
    with pytest.raises(UserError, match="does not take images of 48 pixels"):
        require_resizable(vit, 48)
    assert vit.training


def test_fractions_that_do_not_fit_are_one_line():
    with pytest.raises(UserError, match="delay_fraction and finetune_fraction together are more than 1"):
        ProgressiveResizingConfig(0.5, delay_fraction=0.7, finetune_fraction=0.4)


@pytest.mark.slow
def test_a_run_resumes_at_the_side_where_it_was(people, tmp_path):
    options = {"initial_scale": 0.5, "size_increment": 8, "delay_fraction": 0.2}
    words = [word for name, value in options.items() for word in (f"--train.progressive_resizing.{name}", str(value))]
    run = require_same_after_resume(people, tmp_path, *words, "--train.log_every", "1")
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    sizes = [record["image_size"] for record in records if record["kind"] == "train"]
    assert sizes == sorted(sizes) and set(sizes) == {16, 24, 32}
