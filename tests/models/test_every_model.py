"""Laws that every model obeys."""

import pytest
import torch
from torch import nn

from mivolo_lite.images.packed import Images
from mivolo_lite.models import MODELS
from mivolo_lite.models.mivolo import MIVOLO
from tests.models.tiny import BATCH, SIDE, TinySwinFace, images, tiny_mivolo

BUILDERS = {
    "single, a convolutional face": ("single", {"backbone": "test_resnet"}),
    "single, a transformer's body": ("single", {"backbone": "test_vit_short", "input": "body"}),
    "dual, maps": ("dual", {"face": "test_resnet", "body": "test_convnext_short", "dim": 32}),
    "dual, tokens and a map": ("dual", {"face": "test_vit_short", "body": "test_efficientnet", "dim": 32}),
    "mivolo, face": ("mivolo", {"input": "face"}),
    "mivolo, face and body": ("mivolo", {}),
    "multilevel, a residual network's face": ("multilevel", {"backbone": "test_resnet", "width": 64}),
    "multilevel, a transformer's body": ("multilevel", {"backbone": "test_vit_short", "input": "body", "levels": 2}),
    "multilevel, an efficient network": ("multilevel", {"backbone": "test_efficientnet", "levels": 3}),
    "multilevel, a convolutional network": ("multilevel", {"backbone": "test_convnext_short", "levels": 3}),
    "swinface": ("swinface", {}),
}


@pytest.fixture(params=BUILDERS, scope="module")
def model(request):
    torch.manual_seed(0)
    name, options = BUILDERS[request.param]
    if name == "mivolo":
        return tiny_mivolo(**options)
    cls = TinySwinFace if name == "swinface" else MODELS[name]
    return cls(cls.Config(**options), SIDE)


NONE = Images.of(images(0)[:0])


def asked(model, face, body, *present):
    """What the model is given: of its inputs the images of the samples that are ``present``, all without."""
    return tuple(
        Images.of(x, *present) if name in model.inputs else None for name, x in (("face", face), ("body", body))
    )


def test_every_model_is_built_here():
    built = {name for name, _ in BUILDERS.values()}
    assert set(MODELS) == built - {"mivolo"} | set(MIVOLO)


def test_heads_read_the_features(model):
    model.eval()
    features = model(*asked(model, images(0), images(1)), BATCH)
    for bias in (True, False):
        output = model.make_head(3, bias)(model.make_subnet().eval()(features))
        assert output.shape == (BATCH, 3) and output.isfinite().all()
    assert model.pooled(model.make_subnet().eval()(features)).shape == (BATCH, model.num_features)
    assert len(model.mean) == len(model.std) == 3 and model.inputs


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
def test_heads_answer_in_float32_whatever_surrounds_them(model, bias):
    model.eval()
    read = model.make_subnet().eval()(model(*asked(model, images(0), images(1)), BATCH)).bfloat16()
    head = model.make_head(3, bias)
    with torch.autocast("cpu", torch.bfloat16):
        found = head(read)
    assert found.dtype == torch.float32 and torch.equal(found, head(read.float()))
    halved = head.bfloat16()(read)
    assert halved.dtype == torch.float32
    torch.testing.assert_close(halved, found, atol=0.02, rtol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["nothing", "some", "a whole input"])
def test_gradient_on_every_parameter(model, missing):
    """What DDP without the search for unused parameters needs, on every rank and in every step."""
    model.train()
    model.zero_grad(set_to_none=True)
    head = nn.Sequential(model.make_subnet(), model.make_head(2))
    face, body = asked(model, images(0), images(1))
    present = {"nothing": [True, True], "some": [True, False], "a whole input": [False, False]}[missing]
    absent = asked(model, images(0), images(1), torch.tensor(present))
    given = (face, absent[1]) if len(model.inputs) == 2 else absent
    head(model(*given, BATCH)).square().sum().backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not without
    assert all(parameter.grad.isfinite().all() for parameter in [*model.parameters(), *head.parameters()])


def test_samples_do_not_see_each_other(model):
    model.eval()
    face, body = asked(model, images(0), images(1))
    with torch.no_grad():
        together = model(face, body, BATCH)
        alone = model(*asked(model, images(0)[1:], images(1)[1:]), 1)
    torch.testing.assert_close(together[1:], alone, atol=1e-4, rtol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_inference_has_the_same_outputs(model):
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fast = model.for_inference()
    combinations = [asked(model, images(0), images(1))]
    if len(model.inputs) == 2:
        combinations += [(Images.of(images(0)), NONE), (NONE, Images.of(images(1)))]
    with torch.no_grad():
        for face, body in combinations:
            torch.testing.assert_close(fast(face, body, BATCH), model(face, body, BATCH), atol=1e-4, rtol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.slow
def test_mixed_precision(model):
    """Training in bfloat16: finite gradients everywhere, and nearly the same features."""
    face, body = asked(model, images(0), images(1))
    if len(model.inputs) == 2:
        body = Images.of(images(1), torch.tensor([True, False]))
    model.eval()
    exact = model(face, body, BATCH)
    model.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16):
        features = model(face, body, BATCH)
    features.float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
    assert (features - exact).abs().mean() < 0.05 * exact.abs().mean()


def test_the_size_of_the_features_is_announced(model):
    model.eval()
    with torch.no_grad():
        features = model(*asked(model, images(0), images(1)), BATCH)
        assert model.make_subnet().eval()(features).shape[-1] == model.num_features
