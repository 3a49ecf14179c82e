"""What the models of two inputs make of an image that is not there."""

import copy

import pytest
import torch

from mivolo_lite.models import MODELS
from tests.models.tiny import SIDE, TinyMivolo, images, tiny_mivolo


def yes(*values):
    return torch.tensor(values)


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
def test_what_a_missing_image_holds_does_not_matter(model, missing):
    given = {"face": images(0), "body": images(1)}
    mask = {f"has_{name}": yes(True, name != missing) for name in given}
    one = model(**given, **mask)
    other = model(**given | {missing: given[missing].clone().index_fill_(0, yes(1), 7.0)}, **mask)
    assert torch.equal(one, other)
    here = model(**given, has_face=None, has_body=None)
    torch.testing.assert_close(one[0], here[0], atol=1e-4, rtol=1e-4)
    assert (one[1] - here[1]).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("missing", ["face", "body"])
def test_missing_for_all_is_missing_for_each(model, missing):
    """However an image's absence is said, the answer is the same, though then no backbone runs."""
    given = {"face": images(0), "body": images(1)}
    masks = {"has_face": None, "has_body": None}
    nothing = model(**given | {missing: None}, **masks)
    none_left = model(**given, **masks | {f"has_{missing}": yes(False, False)})
    one_by_one = model(**given, **masks | {f"has_{missing}": yes(True, False)})
    assert torch.equal(nothing, none_left)
    torch.testing.assert_close(nothing[1], one_by_one[1], atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("prepared", [False, True])
def test_a_batch_that_misses_both_answers_as_its_samples_do_among_others(model, prepared):
    """Such a batch is the fill of a rank's last one, or faceless samples evaluated by the face alone."""
    model = model.for_inference() if prepared else model
    given = {"face": images(0), "body": images(1)}
    among = model(**given, has_face=yes(True, False), has_body=yes(True, False))[1:]
    nothing = {"has_face": yes(False, False), "has_body": yes(False, False)}
    for shown in (given, given | {"face": None}, given | {"body": None}):
        together = model(**shown, **nothing)
        torch.testing.assert_close(together, among.expand_as(together), atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("missing", ["face", "body"])
def test_the_backbone_of_what_all_miss_is_not_run(model, missing):
    """MiVOLO looks at 24 pixels of black instead, and not even at those once it is prepared for inference."""
    given = {"face": images(0), "body": images(1), missing: None}
    seen = sizes_seen(stems(model, missing))
    model(**given, has_face=None, has_body=None)
    assert all(shape[0] == 1 and shape[-1] <= 24 for shape in seen)
    fast = model.for_inference()
    seen = sizes_seen(stems(fast, missing))
    fast(**given, has_face=None, has_body=None)
    assert not seen


@pytest.mark.parametrize("missing", ["face", "body"])
def test_training_without_a_image(model, missing):
    """None is what a mask of nothing is, and every parameter still gets a gradient."""
    given = {"face": images(0), "body": images(1)}
    training = copy.deepcopy(model).train()
    masked = training(**given, **{"has_face": None, "has_body": None} | {f"has_{missing}": yes(False, False)})
    nothing = training(**given | {missing: None}, has_face=None, has_body=None)
    torch.testing.assert_close(nothing, masked)
    nothing.square().sum().backward()
    assert not [name for name, parameter in training.named_parameters() if parameter.grad is None]


@torch.no_grad()
def test_mivolo_takes_black_for_a_missing_image():
    model = tiny_mivolo()
    face = images(0)
    black = (torch.zeros_like(face) - torch.tensor(model.mean).view(3, 1, 1)) / torch.tensor(model.std).view(3, 1, 1)
    for given, instead in (((face, None), (face, black)), ((None, face), (black, face))):
        torch.testing.assert_close(model(*given), model(*instead), atol=1e-4, rtol=1e-4)


def test_the_missing_token_learns_from_samples_that_miss_the_image():
    dual = MODELS["dual"]
    model = dual(dual.Config(face="test_resnet", body="test_resnet", dim=32), SIDE)
    for has_body, learns in ((yes(True, True), False), (yes(True, False), True)):
        model.zero_grad(set_to_none=True)
        model(images(0), images(1), None, has_body).square().sum().backward()
        assert bool(model.body.missing_token.grad.abs().max() > 0) == learns


@pytest.mark.parametrize("missing", ["face", "body"])
def test_batch_norm_never_sees_what_stands_in_for_a_image(missing):
    """In training, statistics come from the images that are there, however many are not."""
    torch.manual_seed(0)
    dual = MODELS["dual"]
    model = dual(dual.Config(face="test_resnet", body="test_resnet", dim=32), SIDE).train()
    given = {"face": torch.randn(4, 3, SIDE, SIDE), "body": torch.randn(4, 3, SIDE, SIDE)}
    alone = copy.deepcopy(model)
    there = torch.tensor([False, True, True, False])
    model(**given | {missing: given[missing].masked_fill(~there.view(-1, 1, 1, 1), 7.0)}, **{f"has_{missing}": there})
    alone(**given | {missing: given[missing][[1, 1, 2, 2]]})
    for (name, value), expected in zip(model.state_dict().items(), alone.state_dict().values(), strict=True):
        assert not name.startswith(missing) or torch.allclose(value, expected, atol=1e-6), name
