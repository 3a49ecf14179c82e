"""The package's own checkpoint: it comes with the package, is small, and answers as what it was made from."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mivolo_lite import Predictor
from mivolo_lite.card import Card
from mivolo_lite.convert.convert import convert
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.images.packed import Images
from mivolo_lite.inference.people import Located
from mivolo_lite.package_files import package_folder
from mivolo_lite.packing.crops import CropRules
from tests.inference.scenes import RULES, photo, tiny_estimator

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def shrink(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    sys.modules.pop("default_checkpoint", None)
    from default_checkpoint import shrink

    return shrink


def test_the_package_has_a_checkpoint_of_at_most_8_mb_with_its_sources():
    folder = package_folder("weights")
    assert (folder / "model.safetensors").stat().st_size <= 8_000_000
    card, text = Card.load(folder), (folder / "README.md").read_text()
    assert card.crop_policy["face_boxes"] == "yunet" and card.model["pretrained"] is False
    assert "CC BY 4.0" in text and "Apache-2.0" in text and "public domain" in text
    assert re.search(r"(?<!\w)/(tmp|home|work)/", text + (folder / "model.yaml").read_text()) is None


def test_without_a_name_it_is_the_packages_and_it_sees_an_age():
    predictor = Predictor.load(device="cpu")
    assert predictor.notes == [] and predictor.predict([photo()]) == [[]]
    assert type(predictor.estimator) is Estimator and len(predictor.estimator.method.span) == 121


@pytest.mark.slow
@pytest.mark.parametrize("make", [tiny_estimator, lambda **card: Estimator(_of_lite0(card))])
def test_in_half_the_bytes_the_answers_are_the_same_to_a_twentieth_of_a_year(make, shrink, tmp_path):
    policy = {"/one/machine/a": RULES, "/one/machine/b": RULES | {"crop_size": 99}}
    torch.manual_seed(0)
    make(crop_policy=policy).save(tmp_path / "best")
    shrink(tmp_path / "best", tmp_path / "small", "red", 0.95, 0.08)
    whole, half = Estimator.load(tmp_path / "best"), Estimator.load(tmp_path / "small")
    small, large = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("small", "best"))
    assert small < 0.55 * large
    rules = CropRules(crop_size=whole.card.image_size, face_square=0.95, face_shift=0.08)
    assert half.card.crop_policy == rules.policy() | {"face_boxes": "red"}
    size = whole.card.image_size
    faces = Images.of(torch.from_numpy(np.random.default_rng(0).integers(0, 256, (16, 3, size, size), dtype=np.uint8)))
    with torch.inference_mode():
        (first, genders), (second, again) = (one.estimate(one(faces)) for one in (whole, half))
    assert (first.mean - second.mean).abs().max() < 0.05 and (genders - again).abs().max() < 0.01


def _of_lite0(card: dict) -> Card:
    model = {"name": "single", "backbone": "efficientnet_lite0"}
    return Card(model, {"name": "dldl"}, {"min_age": 0, "max_age": 120}, 64, **card)


def test_a_file_that_is_too_large_is_one_line(shrink, tmp_path, monkeypatch):
    monkeypatch.setattr("default_checkpoint.MOST_BYTES", 1000)
    tiny_estimator().save(tmp_path / "best")
    with pytest.raises(UserError, match="MB, more than"):
        shrink(tmp_path / "best", tmp_path / "small", "red", 0.95, 0.08)


@pytest.mark.slow
def test_a_published_file_is_converted_on_the_way(tmp_path):
    torch.manual_seed(0)
    card = Card({"name": "mivolo_d1_112", "input": "face"}, {"name": "regression"}, {"min_age": 1, "max_age": 95}, 112)
    Estimator(card).save(tmp_path / "best")
    convert(tmp_path / "best", tmp_path / "model.pth.tar")
    ages = []
    for checkpoint in (tmp_path / "best", tmp_path / "model.pth.tar"):
        predictor = Predictor.load(checkpoint, device="cpu")
        ((person,),) = predictor.estimate([photo((20, 30, 80))], [[Located((20.0, 30.0, 100.0, 110.0))]])
        ages.append(person.age)
    assert ages[0] == pytest.approx(ages[1], abs=1e-3)
