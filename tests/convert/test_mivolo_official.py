"""The published layout, both ways."""

import argparse

import numpy as np
import pytest
import torch

from mivolo_lite.batch_labels import AgeRange
from mivolo_lite.convert import mivolo as mivolo_official
from mivolo_lite.convert.mivolo import (
    from_checkpoint,
    from_estimator,
    to_checkpoint,
    to_estimator,
)
from mivolo_lite.errors import UserError
from mivolo_lite.methods.interface import AgeSpan
from mivolo_lite.methods.regression import Regression
from mivolo_lite.models import mivolo
from mivolo_lite.models.weights import read_checkpoint
from tests.models.tiny import LargerTinyMivolo, features, images, publish_tiny_mivolos, tiny_mivolo


def read(path):
    return from_checkpoint(read_checkpoint(path), path)


@pytest.fixture(autouse=True)
def tiny_variants(monkeypatch):
    publish_tiny_mivolos(monkeypatch)


def checkpoint(outputs=3, input="both", **changes):
    """What MiVOLO's authors would have written."""
    model = tiny_mivolo(input=input)
    torch.manual_seed(1)
    head = model.make_head(outputs)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    state = {**model.volo.state_dict(), **{name: value.detach() for name, value in head.state_dict().items()}}
    return {"state_dict": state, "min_age": 1, "max_age": 95, "avg_age": 48.0, "no_gender": outputs == 1} | changes


class Estimator(torch.nn.Module):
    """The modules of a whole estimator, by their names there."""

    def __init__(self, model, span, gender):
        super().__init__()
        self.model = model
        self.method = Regression(model.make_head, span, Regression.Config())
        if gender:
            self.gender_head = model.make_head(2)


def loaded(published):
    name, config, size = published.model
    estimator = Estimator(mivolo.MIVOLO[name](config, size), published.span, published.has_gender).eval()
    result = estimator.load_state_dict(to_estimator(published), strict=False)
    assert result.missing_keys == ["method.center", "method.start", "method.age_weight"] and not result.unexpected_keys
    return estimator


@torch.no_grad()
@pytest.mark.parametrize("input", ["both", "face"])
@pytest.mark.parametrize("center", [48.0, 36.5])
def test_the_columns_mean_what_they_meant(input, center):
    published = from_checkpoint(checkpoint(input=input, avg_age=center), "x")
    original = tiny_mivolo(input=input)
    head = original.make_head(3)
    head.load_state_dict({part: published.state[part] for part in mivolo_official.HEAD_TENSORS})
    face, body = images(0), images(1) if input == "both" else None
    columns = head(features(original, face, body))
    estimator = loaded(published)
    found = features(estimator.model, face, body)
    torch.testing.assert_close(estimator.gender_head(found), columns[:, :2])
    years = estimator.method.estimate(estimator.method(found)).mean
    torch.testing.assert_close(years, columns[:, 2] * (95 - 1) + center, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("outputs, input", [(3, "both"), (3, "face"), (1, "both")])
def test_there_and_back(tmp_path, outputs, input):
    first = checkpoint(outputs, input)
    torch.save(first, tmp_path / "official.pth.tar")
    published = read(tmp_path / "official.pth.tar")
    assert published.has_gender == (outputs == 3) and published.model[0] == "mivolo_tiny_48"
    assert published.model[1].input == input
    estimator = loaded(published)
    back = to_checkpoint(from_estimator(estimator.state_dict(), published.span, "y"))
    torch.save(back, tmp_path / "back.pth.tar")
    again = torch.load(tmp_path / "back.pth.tar", weights_only=True)
    assert {key: value for key, value in again.items() if key != "state_dict"} == {
        "min_age": 1,
        "max_age": 95,
        "avg_age": 48.0,
        "no_gender": outputs == 1,
        "with_persons_model": input == "both",
    }
    assert again["state_dict"].keys() == first["state_dict"].keys()
    assert all(torch.equal(value, again["state_dict"][name]) for name, value in first["state_dict"].items())


def test_a_model_trained_here_can_be_published():
    torch.manual_seed(0)
    span = AgeSpan(0, 80)
    estimator = Estimator(tiny_mivolo(LargerTinyMivolo), span, gender=True)
    estimator.method.fit_prior(torch.arange(len(span)))
    face, body = images(0, 64), images(1, 64)
    output = estimator.method(features(estimator.model, face, body))
    estimator.method.loss(output, AgeRange.exact(torch.tensor([20.0, 60.0]))).sum().backward()
    with torch.no_grad():
        for parameter in estimator.parameters():
            parameter -= 0.01 * (0 if parameter.grad is None else parameter.grad)
    published = from_checkpoint(to_checkpoint(from_estimator(estimator.state_dict(), span, "x")), "x")
    assert published.center == 40 and published.model[2] == 64 and published.state["head.weight"].shape[0] == 3


@pytest.mark.parametrize("averaged", ["state_dict_ema", "model_ema"])
def test_averaged_weights_come_first(averaged):
    plain = checkpoint()
    smooth = {name: value + 1 if value.is_floating_point() else value for name, value in plain["state_dict"].items()}
    published = from_checkpoint(plain | {averaged: smooth}, "x")
    assert torch.equal(published.state["cls_token"], smooth["cls_token"])


def test_what_training_left_is_ignored():
    plain = checkpoint()
    state = {f"module.{name}": value for name, value in plain["state_dict"].items()}
    published = from_checkpoint(plain | {"state_dict": state | {"module.fds.running_mean": torch.zeros(3)}}, "x")
    assert published.state.keys() == plain["state_dict"].keys()


def test_arguments_and_numpys_numbers_are_read(tmp_path):
    extra = {"min_age": np.float64(1), "max_age": np.int64(95), "metric": np.float32(4)}
    torch.save(checkpoint() | extra | {"args": argparse.Namespace(lr=1)}, tmp_path / "official.pth.tar")
    assert read(tmp_path / "official.pth.tar").span == AgeSpan(1, 95)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("an object of the file was called",))


def test_nothing_else_is_unpickled(tmp_path):
    torch.save(checkpoint() | {"args": Bomb()}, tmp_path / "official.pth.tar")
    with pytest.raises(UserError, match="only tensors and plain values are read") as raised:
        read(tmp_path / "official.pth.tar")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c["state_dict"].pop("norm.bias"), "missing: norm.bias"),
        (lambda c: c["state_dict"].pop("patch_embed.map.norm.bias"), "missing: patch_embed.map.norm.bias"),
        (lambda c: c["state_dict"].pop("pos_embed"), "missing: pos_embed"),
        (lambda c: c["state_dict"].update(surplus=torch.zeros(1)), "unexpected: surplus"),
        (lambda c: c["state_dict"].update({"head.bias": torch.zeros(1)}), r"wrong shape: head.bias \(1,\) for \(3,\)"),
        (lambda c: c.update(no_gender=True), r"wrong shape: .*head.weight \(3, 48\) for \(1, 48\)"),
        (lambda c: c.update(with_persons_model=False), "with_persons_model"),
        (lambda c: c.pop("avg_age"), "no avg_age"),
        (lambda c: c.update(max_age=0.5), "max_age"),
        (lambda c: c["state_dict"].update(pos_embed=torch.zeros(1, 2, 2, 48)), "would be mivolo_tiny_32"),
        (lambda c: c["state_dict"].update({"norm.weight": torch.zeros(40)}), r"would be mivolo_\?_48"),
    ],
)
def test_what_is_wrong_is_named(change, message):
    broken = checkpoint()
    change(broken)
    with pytest.raises(UserError, match=message) as raised:
        from_checkpoint(broken, "official.pth.tar")
    assert str(raised.value).startswith("official.pth.tar") and "\n" not in str(raised.value)


def test_only_regression_is_published():
    state = {f"model.{name}": value for name, value in tiny_mivolo().state_dict().items()}
    with pytest.raises(UserError, match="regression"):
        from_estimator(state | {"method.head.head.weight": torch.zeros(101, 48)}, AgeSpan(0, 100), "x")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mivolo_d1_384", "mivolo_d2_224", "mivolo_d3_448", "mivolo_d4_224", "mivolo_d5_512"])
def test_a_file_says_which_model_it_is(name):
    size = int(name.split("_")[-1])
    with torch.device("meta"):
        model = mivolo.MIVOLO[name](mivolo.MivoloModel.Config(), size)
    state = model.volo.state_dict()
    assert mivolo_official.described(state)[::2] == (name, size)
    lacking = {key: value for key, value in state.items() if not key.startswith("network.0.1.")}
    assert mivolo_official.described(lacking)[0] == name
