"""What the models of two inputs make of an image that is not there."""

import copy

import pytest
import torch

from mivolo_lite.images.packed import Images
from mivolo_lite.models import MODELS, missing
from tests.models.tiny import SIDE, TinyMivolo, images, tiny_mivolo


def given(face=(True, True), body=(True, True)):
    """A batch of two samples, of which these have a face and these a body."""
    return Images.of(images(0), torch.tensor(face)), Images.of(images(1), torch.tensor(body)), 2


def without(name, *rows):
    """The same, in which ``rows`` (both without) lack the image of this name."""
    return given(**{name: tuple(row not in (rows or (0, 1)) for row in range(2))})


@pytest.fixture(scope="module", params=["dual", "mivolo"])
def model(request):
    torch.manual_seed(0)
    if request.param == "mivolo":
        return tiny_mivolo()
    dual = MODELS["dual"]
    return dual(dual.Config(face="test_resnet", body="test_vit", dim=32), SIDE).eval()


def stems(model, name):
    """The first modules that an image of this name goes through."""
    if isinstance(model, TinyMivolo):
        return getattr(model.volo.patch_embed, {"face": "conv1", "body": "conv2"}[name])
    return getattr(model, name).tokens


def sizes_seen(module):
    """A list that fills with the shape of what the module is given."""
    seen = []
    module.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    return seen


@torch.no_grad()
@pytest.mark.parametrize("missing", ["face", "body"])
def test_a_missing_image_changes_its_own_sample_alone(model, missing):
    one, here = model(*without(missing, 1)), model(*given())
    torch.testing.assert_close(one[0], here[0], atol=1e-4, rtol=1e-4)
    assert (one[1] - here[1]).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("missing", ["face", "body"])
def test_missing_for_all_is_missing_for_each(model, missing):
    """The answer is the same, though then no backbone runs."""
    nothing, one_by_one = model(*without(missing)), model(*without(missing, 1))
    torch.testing.assert_close(nothing[1], one_by_one[1], atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("prepared", [False, True])
def test_a_batch_that_misses_both_answers_as_its_samples_do_among_others(model, prepared):
    """Such a batch is the fill of a rank's last one, or faceless samples evaluated by the face alone."""
    model = model.for_inference() if prepared else model
    among = model(*given(face=(True, False), body=(True, False)))[1:]
    together = model(*given(face=(False, False), body=(False, False)))
    assert len(together) == 2
    torch.testing.assert_close(together, among.expand_as(together), atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("missing", ["face", "body"])
def test_the_backbone_of_what_all_miss_is_not_run(model, missing):
    """MiVOLO looks at 24 pixels of black instead, and not even at those once it is prepared for inference."""
    seen = sizes_seen(stems(model, missing))
    model(*without(missing))
    assert all(shape[0] == 1 and shape[-1] <= 24 for shape in seen)
    fast = model.for_inference()
    seen = sizes_seen(stems(fast, missing))
    fast(*without(missing))
    assert not seen


@pytest.mark.parametrize("missing", ["face", "body"])
def test_nothing_is_computed_for_a_missing_image(model, missing):
    """In training MiVOLO computes one black image for all that miss theirs, the other models none."""
    training = copy.deepcopy(model).train()
    seen = sizes_seen(stems(training, missing))
    batch = [images(seed).repeat(4, 1, 1, 1) for seed in range(2)]
    present = {name: torch.arange(8) < (3 if name == missing else 8) for name in ("face", "body")}
    training(Images.of(batch[0], present["face"]), Images.of(batch[1], present["body"]), 8)
    assert [shape[0] for shape in seen] == [4 if isinstance(model, TinyMivolo) else 3]


@pytest.mark.parametrize("rows", [(), (1,)])
@pytest.mark.parametrize("missing", ["face", "body"])
def test_every_parameter_gets_a_gradient_whatever_is_missing(model, missing, rows):
    training = copy.deepcopy(model).train()
    training(*without(missing, *rows)).square().sum().backward()
    assert not [name for name, parameter in training.named_parameters() if parameter.grad is None]
    assert all(parameter.grad.isfinite().all() for parameter in training.parameters())


@torch.no_grad()
def test_mivolo_takes_black_for_a_missing_image():
    model = tiny_mivolo()
    face = images(0)
    black = (torch.zeros_like(face) - torch.tensor(model.mean).view(3, 1, 1)) / torch.tensor(model.std).view(3, 1, 1)
    face, black, nothing = Images.of(face), Images.of(black), Images.of(face[:0])
    for shown, instead in (((face, nothing), (face, black)), ((nothing, face), (black, face))):
        torch.testing.assert_close(model(*shown, 2), model(*instead, 2), atol=1e-4, rtol=1e-4)


def test_the_missing_token_learns_from_samples_that_miss_the_image():
    dual = MODELS["dual"]
    model = dual(dual.Config(face="test_resnet", body="test_resnet", dim=32), SIDE)
    for body, learns in (((True, True), False), ((True, False), True)):
        model.zero_grad(set_to_none=True)
        model(*given(body=body)).square().sum().backward()
        assert bool(model.body.missing_token.grad.abs().max() > 0) == learns


@pytest.mark.parametrize("missing", ["face", "body"])
def test_batch_norm_sees_the_images_that_are_there_alone(missing):
    torch.manual_seed(0)
    dual = MODELS["dual"]
    model = dual(dual.Config(face="test_resnet", body="test_resnet", dim=32), SIDE).train()
    pixels = {"face": torch.randn(4, 3, SIDE, SIDE), "body": torch.randn(4, 3, SIDE, SIDE)}
    alone, none = copy.deepcopy(model), copy.deepcopy(model)
    there = torch.tensor([False, True, True, False])
    model(**{name: Images.of(pixels[name], there if name == missing else None) for name in pixels}, batch=4)
    alone(**{name: Images.of(pixels[name][1:3] if name == missing else pixels[name]) for name in pixels}, batch=4)
    none(**{name: Images.of(pixels[name][: 0 if name == missing else 4]) for name in pixels}, batch=4)
    before = dual(dual.Config(face="test_resnet", body="test_resnet", dim=32), SIDE).state_dict()
    for name, value in model.state_dict().items():
        if name.startswith(missing) and "running" in name:
            torch.testing.assert_close(value, alone.state_dict()[name], atol=1e-6, rtol=1e-5)
            assert torch.equal(none.state_dict()[name], before[name])  # as they begin: zeros and ones


@pytest.mark.parametrize(
    ("images", "batch", "computed"), [(2, 64, 16), (17, 64, 32), (33, 64, 48), (48, 64, 48), (63, 64, 64), (50, 50, 50)]
)
def test_gpus_compute_few_different_numbers_of_images(images, batch, computed):
    assert missing.number_computed(images, batch, "cuda") == computed
    assert missing.number_computed(images, batch, "cpu") == images


def test_images_computed_twice_change_no_gradient(monkeypatch):
    """Without batch norm all is as it was: their answers belong to no sample."""
    torch.manual_seed(0)
    dual = MODELS["dual"]
    model = dual(dual.Config(face="test_vit", body="test_vit", dim=32), SIDE).train()
    seen, gradients = sizes_seen(model.face.tokens), []
    for rounded in (set(), {"cpu"}):
        monkeypatch.setattr(missing, "ROUNDED", rounded)
        monkeypatch.setattr(missing, "MULTIPLE", 4)
        model.zero_grad()
        face = Images.of(torch.cat([images(0)] * 3), torch.tensor([True, False, True, False, False, True]))
        features = model(face, Images.of(torch.cat([images(1)] * 3), torch.tensor([True] * 5 + [False])), 6)
        (features * torch.linspace(-1, 1, features.numel()).view_as(features)).sum().backward()
        gradients.append([value.grad.clone() for value in model.parameters()])
    assert [shape[0] for shape in seen] == [3, 4]
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)


def test_mivolo_computes_few_different_numbers_of_images_on_gpus(monkeypatch):
    model = tiny_mivolo().eval()  # batch norm's statistics would see the images that come again
    seen, features = sizes_seen(stems(model, "face")), []
    for rounded in (set(), {"cpu"}):
        monkeypatch.setattr(missing, "ROUNDED", rounded)
        monkeypatch.setattr(missing, "MULTIPLE", 4)
        face = Images.of(torch.cat([images(0)] * 3), torch.tensor([True, False, True, False, False, False]))
        features.append(model(face, Images.of(torch.cat([images(1)] * 3)), 6))
    assert [shape[0] for shape in seen] == [3, 4]
    torch.testing.assert_close(*features, atol=1e-5, rtol=1e-5)
