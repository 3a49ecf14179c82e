"""What a saved estimator needs to be itself again."""

from dataclasses import replace

import pytest
import torch
import yaml

from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.methods import METHODS

SPAN = {"min_age": 0, "max_age": 100}


def card(method="classification", **model):
    options = {"name": "single", "backbone": "test_resnet"} | model
    return Card(options, {"name": method}, dict(SPAN), image_size=32, data_digest="d", crop_policy={"face": "as it is"})


@pytest.mark.parametrize("method", METHODS)
def test_saved_and_loaded_it_answers_the_same(method, tmp_path):
    torch.manual_seed(0)
    estimator = Estimator(card(method)).eval()
    estimator.method.fit_prior(torch.arange(101))
    face = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    estimator.save(tmp_path)
    loaded = Estimator.load(tmp_path)
    with torch.inference_mode():
        before, after = estimator(face), loaded(face)
    assert torch.equal(before["age"], after["age"]) and torch.equal(before["gender"], after["gender"])
    age, gender = loaded.estimate(after)
    assert age.age.shape == (3,) and torch.isfinite(age.age).all() and gender.sum(1).allclose(torch.ones(3))


@pytest.mark.parametrize("method", METHODS)
def test_under_autocast_the_heads_and_the_decoding_are_those_of_float32(method):
    """The features alone are in bfloat16."""
    torch.manual_seed(0)
    options = [{"name": "mood", "classes": ["bad", "good"]}, {"name": "weight", "kind": "regression"}]
    estimator = Estimator(replace(card(method), tasks=options)).eval()
    estimator.method.fit_prior(torch.arange(101))
    face = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    features = []
    estimator.model.register_forward_hook(lambda *parts: features.append(parts[-1]))
    with torch.inference_mode():
        with torch.autocast("cpu", torch.bfloat16):
            found = estimator(face)
            answer = estimator.estimate(found)
        estimator.model.forward = lambda *pictures: features[0].float()
        expected = estimator(face)
        exact = estimator.estimate(expected)
    assert features[0].dtype == torch.bfloat16
    for name, output in expected.items():
        assert found[name].dtype == torch.float32 and torch.equal(found[name], output), name
    assert torch.equal(answer[0].age, exact[0].age) and torch.equal(answer[0].mean, exact[0].mean)
    assert torch.equal(answer[1], exact[1])


def test_the_card_holds_what_inference_needs_and_decides_the_normalisation(tmp_path):
    Estimator(card()).save(tmp_path)
    written = yaml.safe_load((tmp_path / "model.yaml").read_text())
    assert written["span"] == SPAN and written["image_size"] == 32 and written["data_digest"] == "d"
    assert written["crop_policy"] == {"face": "as it is"} and set(written["normalisation"]) == {"mean", "std"}
    written["normalisation"] = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(written))
    loaded = Estimator.load(tmp_path)
    white = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    assert loaded._normalise(white).eq(1).all()


@pytest.mark.parametrize(
    "model, started_from, inputs",
    [
        ({}, {"weights": "gone.safetensors", "pretrained": True}, ("face",)),
        (
            {"name": "dual", "backbone": None, "face": "test_resnet", "body": "test_resnet"},
            {"face_weights": "gone.safetensors", "body_weights": "gone.safetensors"},
            ("face", "body"),
        ),
    ],
)
def test_what_training_started_from_need_not_be_there_any_more(model, started_from, inputs, tmp_path):
    options = {name: value for name, value in (card(**model).model).items() if value is not None}
    estimator = Estimator(Card(options, {"name": "classification"}, dict(SPAN), image_size=32))
    estimator.card.model |= started_from
    estimator.save(tmp_path)
    assert Estimator.load(tmp_path).inputs == inputs


def test_another_folder_is_told(tmp_path):
    with pytest.raises(UserError, match="no model.safetensors"):
        Estimator.load(tmp_path)


def test_weights_of_another_method_are_one_line(tmp_path):
    Estimator(card("coral")).save(tmp_path)
    written = yaml.safe_load((tmp_path / "model.yaml").read_text())
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(written | {"method": {"name": "or_cnn"}}))
    with pytest.raises(UserError, match="do not fit the model; missing: method.head.bias; unexpected") as error:
        Estimator.load(tmp_path)
    assert "\n" not in str(error.value)
